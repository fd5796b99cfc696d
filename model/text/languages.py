"""Data of each language for text normalization: letters, abbreviations, signs, units, dates, espeak-ng voice."""

from __future__ import annotations

from dataclasses import dataclass, field

MANDARIN = "mandarin"
"""Voice of Mandarin, which `model.text.mandarin` phonemizes instead of espeak-ng."""
Forms = tuple[str, ...]
"""Noun with its number: singular, plural, genitive plural (Russian). `{}` is the number, `{f}` its feminine form."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """Normalization rules of a language, as data.

    Attributes:
        voice: espeak-ng voice, or `MANDARIN`.
        scripts: Prefixes of the Unicode names of its letters; empty accepts every letter.
        letters: Spelling variant -> the letter that espeak-ng knows.
        abbreviations: Abbreviation, with its full stop -> words.
        symbols: Sign -> words.
        currencies, units: Sign or unit -> noun with the number.
        cents: Text between an amount and its hundredths, and noun forms of these; empty reads them as decimals.
        numbers: Language of num2words, or `zh`; empty leaves digits to espeak-ng.
        decimal, thousands: Sign before decimals, and signs (characters of a pattern's class) between groups of three.
        point, minus: Words for these signs.
        between: Word for the dash of a range.
        ordinal: Pattern of the ending of an ordinal in digits.
        years: Whether 1100 to 1999 are read in pairs.
        hours, minutes: Noun forms of a time of day.
        hour, hour_and_minutes: Templates of a time of day, with `{hours}` and `{minutes}`.
        clock: Pattern of a word after a time that is part of it.
        months: Names of the months; 13 to 24 are those of the Gregorian calendar where the first twelve are not.
        dates: Separator and order of a date in digits, `/mdy`.
        date: Template of a date, with `{day}`, `{month}` and `{year}`.
        spaced: Whether words are separated by spaces.
        scales: Letter after an amount of money -> word: `$3.5M`.
        seconds: Noun forms of the seconds of a time of day, with the conjunction.
        whole_and: Conjunction between a whole number and a fraction.
        short_months: Abbreviation of a month without full stop -> name, used beside a number only.
        slash_decimal: Whether a slash between the script's own digits is a decimal sign.
    """

    voice: str
    scripts: tuple[str, ...] = ()
    letters: dict[str, str] = field(default_factory=dict)
    abbreviations: dict[str, str] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)
    currencies: dict[str, Forms] = field(default_factory=dict)
    units: dict[str, Forms] = field(default_factory=dict)
    cents: tuple[str, ...] = ()
    numbers: str = ""
    decimal: str = "."
    thousands: str = ","
    point: str = ""
    minus: str = ""
    between: str = ""
    ordinal: str = ""
    years: bool = False
    hours: Forms = ("{}",)
    minutes: Forms = ("{}",)
    hour: str = "{hours}"
    hour_and_minutes: str = "{hours} {minutes}"
    clock: str = ""
    months: tuple[str, ...] = ()
    dates: str = ""
    date: str = "{day} {month} {year}"
    spaced: bool = True
    scales: dict[str, str] = field(default_factory=dict)
    seconds: Forms = ()
    whole_and: str = ""
    short_months: dict[str, str] = field(default_factory=dict)
    slash_decimal: bool = False


def _scales(thousand: str, million: str, billion: str, trillion: str) -> dict[str, str]:
    """Returns the letters after an amount, which all these languages share, with their words."""
    letters = {thousand: "k K", million: "m M mn mln Mn", billion: "b B bn Bn", trillion: "t T tn Tn"}
    return {letter: word for word, names in letters.items() for letter in names.split()}


def _months(abbreviations: str, names: str) -> dict[str, str]:
    """Returns the names of abbreviated months."""
    return dict(zip(abbreviations.split(), names.split(), strict=True))


def _english(voice: str, dates: str) -> Language:
    return Language(
        voice=voice,
        scripts=("LATIN",),
        abbreviations={
            "Mr.": "Mister", "Mrs.": "Missis", "Ms.": "Miss", "Dr.": "Doctor", "Prof.": "Professor",
            "St.": "Saint", "Co.": "Company", "Jr.": "Junior", "Sr.": "Senior", "Maj.": "Major", "Gen.": "General",
            "Capt.": "Captain", "Lt.": "Lieutenant", "Col.": "Colonel", "Sgt.": "Sergeant", "Rev.": "Reverend",
            "Hon.": "Honorable", "Ltd.": "Limited", "Esq.": "Esquire", "vs.": "versus", "etc.": "et cetera",
            "e.g.": "for example", "i.e.": "that is",
            "Ph.D.": "PHD", "PhD": "PHD", "D.Phil.": "D Phil", "Ed.D.": "EDD", "B.Sc.": "B S C", "M.Sc.": "M S C",
            "BSc": "B S C", "MSc": "M S C", "M.Eng.": "M Eng", "LL.B.": "LLB", "LL.M.": "LLM",
            "Messrs.": "Messieurs", "Mx.": "Mix", "Gov.": "Governor", "Sen.": "Senator", "Rep.": "Representative",
            "Pres.": "President", "Cpl.": "Corporal", "Cmdr.": "Commander", "Adm.": "Admiral",
            "Supt.": "Superintendent",
            "Mt.": "Mount", "Ft.": "Fort", "Ave.": "Avenue", "Blvd.": "Boulevard", "Rd.": "Road",
            "Inc.": "Incorporated",
            "Corp.": "Corporation", "Dept.": "Department", "Univ.": "University", "approx.": "approximately",
            "Nos.": "Numbers", "Vol.": "Volume", "Fig.": "Figure", "Feb.": "February", "Aug.": "August",
            "Sept.": "September", "Oct.": "October", "Nov.": "November", "Dec.": "December",
            "a.m.": "ay em", "p.m.": "pea em",  # spelled so that the lone A is no article
        },
        symbols={
            "×": "times", "÷": "divided by", "±": "plus or minus", "≥": "greater than or equal to",
            "≤": "less than or equal to", "≠": "not equal to", "≈": "approximately", "<": "less than",
            ">": "greater than",
            "~": "about", "∞": "infinity", "√": "square root of", "‰": "per mille", "²": "squared", "³": "cubed",
            "→": "to", "§": "section", "µ": "micro", "∑": "sum of", "π": "pi",
            "&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "°": "degrees", "#": "number",
        },
        currencies={
            "$": ("{} dollar", "{} dollars"), "£": ("{} pound", "{} pounds"), "€": ("{} euro", "{} euros"),
            "¥": ("{} yen",),
        },
        units={
            "%": ("{} percent",), "°C": ("{} degree Celsius", "{} degrees Celsius"),
            "°F": ("{} degree Fahrenheit", "{} degrees Fahrenheit"), "km/h": ("{} kilometers per hour",),
            "km": ("{} kilometer", "{} kilometers"), "kg": ("{} kilogram", "{} kilograms"),
            "cm": ("{} centimeter", "{} centimeters"), "mm": ("{} millimeter", "{} millimeters"),
        },
        cents=(" ",),
        numbers="en",
        scales=_scales("thousand", "million", "billion", "trillion"),
        seconds=("and {} second", "and {} seconds"),
        whole_and="and",
        short_months=_months(
            "Jan Feb Mar Apr Jun Jul Aug Sept Sep Oct Nov Dec",
            "January February March April June July August September September October November December",
        ),
        point="point",
        minus="minus",
        between="to",
        ordinal="st|nd|rd|th",
        years=True,
        hour="{hours} o'clock",
        months=("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
                "November", "December"),
        dates=dates,
        date="{month} {day} {year}",
    )  # fmt: skip


LANGUAGES: dict[str, Language] = {
    "en": _english("en-us", "/mdy"),
    "en-us": _english("en-us", "/mdy"),
    "en-gb": _english("en", "/dmy"),
    "de": Language(
        voice="de",
        scripts=("LATIN",),
        abbreviations={
            "z.B.": "zum Beispiel", "z. B.": "zum Beispiel", "d.h.": "das heißt", "d. h.": "das heißt",
            "u.a.": "unter anderem", "usw.": "und so weiter", "bzw.": "beziehungsweise", "ca.": "circa",
            "Dr.": "Doktor", "Prof.": "Professor", "Hr.": "Herr", "Hrn.": "Herrn", "Dipl.-Ing.": "Diplomingenieur",
            "Ing.": "Ingenieur",
            "med.": "med", "Mag.": "Magister", "phil.": "phil", "Fr.": "Frau", "Nr.": "Nummer", "Str.": "Straße",
            "evtl.": "eventuell", "inkl.": "inklusive", "Mio.": "Millionen", "Mrd.": "Milliarden", "St.": "Sankt",
            "bzgl.": "bezüglich", "vgl.": "vergleiche", "Abs.": "Absatz", "Std.": "Stunden", "Min.": "Minuten",
        },
        symbols={
            "×": "mal", "÷": "geteilt durch", "±": "plus minus", "≥": "größer oder gleich", "≤": "kleiner oder gleich",
            "≠": "ungleich", "≈": "ungefähr", "<": "kleiner als", ">": "größer als", "~": "etwa", "∞": "unendlich",
            "√": "Wurzel aus", "‰": "Promille", "²": "Quadrat", "³": "hoch drei", "→": "zu", "π": "Pi",
            "&": "und", "%": "Prozent", "+": "plus", "=": "gleich", "@": "ät", "°": "Grad", "§": "Paragraf",
            "#": "Nummer",
        },
        currencies={"€": ("{} Euro",), "$": ("{} Dollar",), "£": ("{} Pfund",)},
        units={
            "%": ("{} Prozent",), "°C": ("{} Grad Celsius",), "km/h": ("{} Kilometer pro Stunde",),
            "km": ("{} Kilometer",), "kg": ("{} Kilogramm",), "cm": ("{} Zentimeter",), "mm": ("{} Millimeter",),
        },
        cents=(" ",),
        scales=_scales("tausend", "Millionen", "Milliarden", "Billionen"),
        seconds=("und {f} Sekunde", "und {} Sekunden"), whole_and="und",
        short_months=_months("Jan Feb Mrz Apr Jun Jul Aug Sep Sept Okt Nov Dez",
                             "Januar Februar März April Juni Juli August September September Oktober November "
                             "Dezember"),
        numbers="de", decimal=",", thousands=". ", point="Komma", minus="minus", between="bis", years=True,
        hours=("{} Uhr",), clock="Uhr",
        months=("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober",
                "November", "Dezember"),
        dates=".dmy",
    ),
    "es": Language(
        voice="es",
        scripts=("LATIN",),
        abbreviations={
            "Sr.": "señor", "Sra.": "señora", "Srta.": "señorita", "Dr.": "doctor", "Dra.": "doctora",
            "Ud.": "usted", "Prof.": "profesor", "Profa.": "profesora", "Lic.": "licenciado", "Ing.": "ingeniero",
            "D.ª": "doña", "Dña.": "doña", "Sres.": "señores", "Uds.": "ustedes", "EE. UU.": "Estados Unidos",
            "EE.UU.": "Estados Unidos",
            "p. ej.": "por ejemplo", "etc.": "etcétera", "pág.": "página", "núm.": "número",
            "a.m.": "de la mañana", "p.m.": "de la tarde", "Av.": "avenida",
        },
        symbols={
            "×": "por", "÷": "dividido por", "±": "más menos", "≥": "mayor o igual que", "≤": "menor o igual que",
            "≠": "distinto de", "≈": "aproximadamente", "<": "menor que", ">": "mayor que", "~": "unos",
            "∞": "infinito",
            "√": "raíz de", "‰": "por mil", "²": "al cuadrado", "³": "al cubo", "→": "a", "§": "sección", "π": "pi",
            "&": "y", "%": "por ciento", "+": "más", "=": "igual a", "@": "arroba", "°": "grados", "#": "número",
        },
        currencies={
            "€": ("{} euro", "{} euros"), "$": ("{} dólar", "{} dólares"), "£": ("{f} libra", "{f} libras"),
        },
        units={
            "%": ("{n} por ciento",), "°C": ("{} grado centígrado", "{} grados centígrados"),
            "km/h": ("{} kilómetro por hora", "{} kilómetros por hora"), "km": ("{} kilómetro", "{} kilómetros"),
            "kg": ("{} kilo", "{} kilos"), "cm": ("{} centímetro", "{} centímetros"),
            "mm": ("{} milímetro", "{} milímetros"),
        },
        cents=(" con ",),
        scales=_scales("mil", "millones de", "mil millones de", "billones de"),
        seconds=("y {} segundo", "y {} segundos"), whole_and="y",
        short_months=_months("ene feb mar abr may jun jul ago sep sept oct nov dic",
                             "enero febrero marzo abril mayo junio julio agosto septiembre septiembre octubre "
                             "noviembre diciembre"),
        numbers="es", decimal=",", thousands=". ", point="coma", minus="menos", between="a",
        ordinal=r"\.?(º|ª|er)",
        hours=("{f}",), hour_and_minutes="{hours} y {minutes}",
        months=("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre",
                "noviembre", "diciembre"),
        dates="/dmy", date="{day} de {month} de {year}",
    ),
    "fr": Language(
        voice="fr",
        scripts=("LATIN",),
        abbreviations={
            "M.": "monsieur", "Mme": "madame", "Mlle": "mademoiselle", "Dr": "docteur", "Dr.": "docteur",
            "MM.": "messieurs", "Mmes": "mesdames", "Mlles": "mesdemoiselles",
            "Pr": "professeur", "Pr.": "professeur", "Prof.": "professeur", "Mgr": "monseigneur",
            "etc.": "et cetera", "c.-à-d.": "c'est-à-dire", "p. ex.": "par exemple", "av.": "avenue", "n°": "numéro",
            "St": "saint", "Ste": "sainte",
        },
        symbols={
            "×": "fois", "÷": "divisé par", "±": "plus ou moins", "≥": "supérieur ou égal à",
            "≤": "inférieur ou égal à", "≠": "différent de", "≈": "environ", "<": "inférieur à", ">": "supérieur à",
            "~": "environ", "∞": "infini", "√": "racine de", "‰": "pour mille", "²": "au carré", "³": "au cube",
            "→": "à", "§": "paragraphe", "π": "pi",
            "&": "et", "%": "pour cent", "+": "plus", "=": "égale", "@": "arobase", "°": "degrés", "#": "numéro",
        },
        currencies={
            "€": ("{} euro", "{} euros"), "$": ("{} dollar", "{} dollars"), "£": ("{f} livre", "{f} livres"),
        },
        units={
            "%": ("{} pour cent",), "°C": ("{} degré Celsius", "{} degrés Celsius"),
            "km/h": ("{} kilomètre heure", "{} kilomètres heure"), "km": ("{} kilomètre", "{} kilomètres"),
            "kg": ("{} kilo", "{} kilos"), "cm": ("{} centimètre", "{} centimètres"),
            "mm": ("{} millimètre", "{} millimètres"),
        },
        cents=(" ",),
        scales=_scales("mille", "millions de", "milliards de", "billions de"),
        seconds=("et {f} seconde", "et {f} secondes"), whole_and="et",
        short_months=_months("janv févr avr juil sept oct nov déc",
                             "janvier février avril juillet septembre octobre novembre décembre"),
        numbers="fr", decimal=",", thousands=" ", point="virgule", minus="moins", between="à",
        ordinal="(er|re|ère|ere|e|è|ème|eme|nd|nde)",
        hours=("{f} heure", "{f} heures"),
        months=("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre",
                "novembre", "décembre"),
        dates="/dmy",
    ),
    "it": Language(
        voice="it",
        scripts=("LATIN",),
        abbreviations={
            "sig.": "signor", "Sig.": "signor", "sig.ra": "signora", "Sig.ra": "signora", "dott.": "dottor",
            "Dott.": "dottor", "prof.": "professor", "Prof.": "professor", "dott.ssa": "dottoressa",
            "Dott.ssa": "dottoressa",
            "prof.ssa": "professoressa", "Prof.ssa": "professoressa", "avv.": "avvocato", "Avv.": "avvocato",
            "ing.": "ingegner", "Ing.": "ingegner", "arch.": "architetto", "On.": "onorevole",
            "Dr.": "dottor", "ecc.": "eccetera", "pag.": "pagina",
            "p.es.": "per esempio", "a.C.": "avanti Cristo", "d.C.": "dopo Cristo",
        },
        symbols={
            "×": "per", "÷": "diviso", "±": "più o meno", "≥": "maggiore o uguale a", "≤": "minore o uguale a",
            "≠": "diverso da", "≈": "circa", "<": "minore di", ">": "maggiore di", "~": "circa", "∞": "infinito",
            "√": "radice di", "‰": "per mille", "²": "al quadrato", "³": "al cubo", "→": "a", "§": "paragrafo",
            "π": "pi",
            "&": "e", "%": "per cento", "+": "più", "=": "uguale", "@": "chiocciola", "°": "gradi", "#": "numero",
        },
        currencies={
            "€": ("{} euro",), "$": ("{} dollaro", "{} dollari"), "£": ("{f} sterlina", "{f} sterline"),
        },
        units={
            "%": ("{n} per cento",), "°C": ("{} grado", "{} gradi"),
            "km/h": ("{} chilometro orario", "{} chilometri orari"), "km": ("{} chilometro", "{} chilometri"),
            "kg": ("{} chilo", "{} chili"), "cm": ("{} centimetro", "{} centimetri"),
            "mm": ("{} millimetro", "{} millimetri"),
        },
        cents=(" e ",),
        scales=_scales("mila", "milioni di", "miliardi di", "bilioni di"),
        seconds=("e {} secondo", "e {} secondi"), whole_and="e",
        short_months=_months("gen feb mar apr mag giu lug ago set sett ott nov dic",
                             "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre settembre ottobre "
                             "novembre dicembre"),
        numbers="it", decimal=",", thousands=". ", point="virgola", minus="meno", between="a",
        ordinal="(º|ª|°)",
        hours=("{f}",), hour_and_minutes="{hours} e {minutes}",
        months=("gennaio", "febbraio", "marzo", "aprile", "maggio", "giugno", "luglio", "agosto", "settembre",
                "ottobre", "novembre", "dicembre"),
        dates="/dmy",
    ),
    "nl": Language(
        voice="nl",
        scripts=("LATIN",),
        abbreviations={
            "bijv.": "bijvoorbeeld", "b.v.": "bijvoorbeeld", "d.w.z.": "dat wil zeggen", "enz.": "enzovoort",
            "o.a.": "onder andere", "ca.": "circa", "dhr.": "de heer", "mevr.": "mevrouw", "mw.": "mevrouw",
            "dr.": "doctor", "prof.": "professor", "Dr.": "doctor", "Prof.": "professor", "drs.": "doctorandus",
            "ir.": "ingenieur", "ing.": "ingenieur", "mr.": "meester", "nr.": "nummer", "a.u.b.": "alstublieft",
            "m.b.t.": "met betrekking tot",
            "i.p.v.": "in plaats van", "t/m": "tot en met", "St.": "Sint",
        },
        symbols={
            "×": "keer", "÷": "gedeeld door", "±": "plus of min", "≥": "groter dan of gelijk aan",
            "≤": "kleiner dan of gelijk aan", "≠": "ongelijk aan", "≈": "ongeveer", "<": "kleiner dan",
            ">": "groter dan",
            "~": "ongeveer", "∞": "oneindig", "√": "wortel van", "‰": "promille", "²": "kwadraat", "³": "tot de derde",
            "→": "naar", "§": "paragraaf", "π": "pi",
            "&": "en", "%": "procent", "+": "plus", "=": "is", "@": "apenstaartje", "°": "graden", "#": "nummer",
        },
        currencies={"€": ("{} euro",), "$": ("{} dollar",), "£": ("{} pond",)},
        units={
            "%": ("{} procent",), "°C": ("{} graden Celsius",), "km/h": ("{} kilometer per uur",),
            "km": ("{} kilometer",), "kg": ("{} kilo",), "cm": ("{} centimeter",), "mm": ("{} millimeter",),
        },
        cents=(" ",),
        scales=_scales("duizend", "miljoen", "miljard", "biljoen"),
        seconds=("en {} seconde", "en {} seconden"), whole_and="en",
        short_months=_months("jan feb mrt apr jun jul aug sep sept okt nov dec",
                             "januari februari maart april juni juli augustus september september oktober november "
                             "december"),
        numbers="nl", decimal=",", thousands=". ", point="komma", minus="min", between="tot", years=True,
        ordinal="(e|de|ste)",
        hours=("{} uur",), clock="uur",
        months=("januari", "februari", "maart", "april", "mei", "juni", "juli", "augustus", "september", "oktober",
                "november", "december"),
        dates="-dmy",
    ),
    "ru": Language(
        voice="ru",
        scripts=("CYRILLIC", "LATIN"),
        abbreviations={
            "т.е.": "то есть", "т. е.": "то есть", "т.д.": "так далее", "т. д.": "так далее", "т.п.": "тому подобное",
            "др.": "другие", "напр.": "например", "г.": "год", "гг.": "годы", "ул.": "улица",
            "тыс.": "тысяч", "д-р": "доктор", "проф.": "профессор", "г-н": "господин", "г-жа": "госпожа",
            "акад.": "академик", "гр.": "гражданин", "к.т.н.": "кандидат технических наук", "т.к.": "так как",
            "млн": "миллионов", "млрд": "миллиардов", "им.": "имени",
        },
        symbols={
            "×": "умножить на", "÷": "разделить на", "±": "плюс минус", "≥": "больше или равно",
            "≤": "меньше или равно", "≠": "не равно", "≈": "примерно", "<": "меньше", ">": "больше", "~": "примерно",
            "∞": "бесконечность", "√": "корень из", "‰": "промилле", "²": "в квадрате", "³": "в кубе", "→": "к",
            "§": "параграф", "#": "номер", "π": "пи",
            "&": "и", "%": "процентов", "+": "плюс", "=": "равно", "@": "собака", "°": "градусов", "№": "номер",
        },
        currencies={
            "₽": ("{} рубль", "{} рубля", "{} рублей"), "$": ("{} доллар", "{} доллара", "{} долларов"),
            "€": ("{} евро",),
        },
        units={
            "%": ("{} процент", "{} процента", "{} процентов"),
            "°C": ("{} градус", "{} градуса", "{} градусов"),
            "км/ч": ("{} километр в час", "{} километра в час", "{} километров в час"),
            "км": ("{} километр", "{} километра", "{} километров"),
            "кг": ("{} килограмм", "{} килограмма", "{} килограммов"),
            "см": ("{} сантиметр", "{} сантиметра", "{} сантиметров"),
            "руб.": ("{} рубль", "{} рубля", "{} рублей"),
        },
        cents=(" ", "{f} копейка", "{f} копейки", "{f} копеек"),
        scales=_scales("тысяч", "миллионов", "миллиардов", "триллионов"),
        seconds=("{f} секунда", "{f} секунды", "{f} секунд"), whole_and="и",
        short_months=_months("янв фев февр мар апр июн июл авг сен сент окт ноя нояб дек",
                             "января февраля февраля марта апреля июня июля августа сентября сентября октября ноября "
                             "ноября декабря"),
        numbers="ru", decimal=",", thousands=" ", point="запятая", minus="минус", between="до",
        ordinal="-(ый|ий|ой|ая|ое|ую|го|му|й|я|е|м|ю)",
        hours=("{} час", "{} часа", "{} часов"), minutes=("{f} минута", "{f} минуты", "{f} минут"),
        months=("января", "февраля", "марта", "апреля", "мая", "июня", "июля", "августа", "сентября", "октября",
                "ноября", "декабря"),
        dates=".dmy", date="{day} {month} {year} года",
    ),
    "zh": Language(
        voice=MANDARIN,
        scripts=("CJK", "LATIN", "IDEOGRAPHIC"),
        letters={"〇": "零"},
        symbols={
            "×": "乘以", "÷": "除以", "±": "正负", "≥": "大于等于", "≤": "小于等于", "≠": "不等于", "≈": "约等于",
            "<": "小于", ">": "大于", "~": "约", "∞": "无穷大", "√": "根号", "‰": "千分号", "²": "平方", "³": "立方",
            "→": "到", "π": "派", "&": "和", "%": "百分号", "+": "加", "=": "等于", "@": "at", "°": "度", "#": "号",
        },
        currencies={"¥": ("{}元",), "$": ("{}美元",), "€": ("{}欧元",), "£": ("{}英镑",)},
        units={
            "%": ("百分之{}",), "°C": ("{}摄氏度",), "km/h": ("每小时{}公里",), "km": ("{}公里",), "kg": ("{}公斤",),
            "cm": ("{}厘米",), "mm": ("{}毫米",),
        },
        scales=_scales("千", "百万", "十亿", "万亿"), seconds=("{}秒",), whole_and="又",
        numbers="zh", point="点", minus="负", between="到",
        hours=("{}点",), minutes=("{}分",), hour_and_minutes="{hours}{minutes}",
        months=("一月", "二月", "三月", "四月", "五月", "六月", "七月", "八月", "九月", "十月", "十一月", "十二月"),
        dates="/ymd", date="{year}年{month}{day}日", spaced=False,
    ),
    "fa": Language(
        voice="fa",
        scripts=("ARABIC", "LATIN"),
        letters={
            "ي": "ی", "ى": "ی", "ك": "ک", "ة": "ه", "ۀ": "ه‌ی", "هٔ": "ه‌ی", "أ": "ا", "إ": "ا", "ٱ": "ا", "ـ": "",
            "ؤ": "و", "ﷲ": "الله",
        },
        abbreviations={"ه.ش.": "هجری شمسی", "ه.ق.": "هجری قمری", "ق.م.": "قبل از میلاد", "ص.": "صفحه"},
        symbols={
            "×": "ضربدر", "÷": "تقسیم بر", "±": "به علاوه منهای", "≥": "بزرگتر یا مساوی", "≤": "کوچکتر یا مساوی",
            "≠": "نامساوی", "≈": "تقریباً", "<": "کوچکتر از", ">": "بزرگتر از", "~": "حدود", "∞": "بی‌نهایت",
            "√": "ریشه", "‰": "در هزار", "²": "به توان دو", "³": "به توان سه", "→": "به", "π": "پی",
            "&": "و", "%": "درصد", "٪": "درصد", "+": "به علاوه", "=": "مساوی", "@": "ات", "°": "درجه", "#": "شماره",
        },
        currencies={"$": ("{} دلار",), "£": ("{} پوند",), "€": ("{} یورو",), "﷼": ("{} ریال",)},
        units={
            "%": ("{} درصد",), "٪": ("{} درصد",), "°C": ("{} درجه سانتی‌گراد",), "km": ("{} کیلومتر",),
            "kg": ("{} کیلوگرم",), "cm": ("{} سانتی‌متر",),
        },
        scales=_scales("هزار", "میلیون", "میلیارد", "تریلیون"), seconds=("و {} ثانیه",), whole_and="و",
        slash_decimal=True,
        numbers="fa", point="ممیز", minus="منفی", between="تا",
        ordinal="ام|م",
        minutes=("{} دقیقه",), hour_and_minutes="{hours} و {minutes}",
        months=("فروردین", "اردیبهشت", "خرداد", "تیر", "مرداد", "شهریور", "مهر", "آبان", "آذر", "دی", "بهمن", "اسفند",
                "ژانویه", "فوریه", "مارس", "آوریل", "مه", "ژوئن", "ژوئیه", "اوت", "سپتامبر", "اکتبر", "نوامبر",
                "دسامبر"),
        dates="/ymd",
    ),
}  # fmt: skip


def language_of(name: str) -> Language:
    """Returns the rules of a language; those of an espeak-ng voice without rules are empty."""
    return LANGUAGES.get(name) or Language(voice=name)


def code_of(locale: str) -> str:
    """Returns the language of a locale in a corpus: `zh` for `zh-CN` and `zh_TW`, `en-gb` for `en-GB`."""
    name = locale.strip().replace("_", "-").lower()
    return name if name in LANGUAGES else name.partition("-")[0]
