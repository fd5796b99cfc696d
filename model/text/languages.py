"""What each language needs besides its espeak-ng voice: letters, abbreviations, signs, units and dates, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

MANDARIN = "mandarin"
"""Stands for `model.text.mandarin` where other languages name a voice of espeak-ng."""
Forms = tuple[str, ...]
"""A noun with its number: of one, of several, of many (Russian). `{}` is the number, `{f}` its feminine form."""


@dataclass(frozen=True)
class Language:
    """How a language is written and read.

    Attributes:
        voice: espeak-ng voice that speaks it, or `MANDARIN`.
        scripts: Prefixes of the Unicode names of its letters; empty accepts every letter.
        letters: Spelling variants -> the letter that espeak-ng knows.
        abbreviations: Abbreviation (with its full stop) -> words.
        symbols: Sign -> words.
        currencies, units: Sign or unit -> what is said with the number.
        cents: Between an amount and its hundredths, and what follows these; empty reads them as decimals.
        numbers: Language of num2words, or `zh`; empty leaves figures to espeak-ng.
        decimal, thousands: What stands before decimals, and (as a class of a pattern) between groups of three.
        point, minus: Words for these signs.
        between: Word for the dash of a range.
        ordinal: Pattern of what makes a figure an ordinal.
        years: Whether 1100 to 1999 are read in pairs.
        hour, hour_and_minutes: Templates of a time of day; `{hours}` and `{minutes}` are what is said with numbers.
        clock: Pattern of a word behind a time that is part of it.
        months: Their names in a date; a second dozen are those of another calendar's later years.
        dates: Separator and order of a date in figures, `/mdy`.
        date: Template of a date, of `{day}`, `{month}` and `{year}`.
        spaced: Whether words are set apart by spaces.
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
            "a.m.": "ay em", "p.m.": "pea em",  # spelt so that the lone A is no article
        },
        symbols={
            "&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "°": "degrees", "#": "number",
            "½": "one half", "¼": "one quarter", "¾": "three quarters",
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
            "Dr.": "Doktor", "Prof.": "Professor", "Hr.": "Herr", "Fr.": "Frau", "Nr.": "Nummer", "Str.": "Straße",
            "evtl.": "eventuell", "inkl.": "inklusive", "Mio.": "Millionen", "Mrd.": "Milliarden", "St.": "Sankt",
            "bzgl.": "bezüglich", "vgl.": "vergleiche", "Abs.": "Absatz", "Std.": "Stunden", "Min.": "Minuten",
        },
        symbols={
            "&": "und", "%": "Prozent", "+": "plus", "=": "gleich", "@": "ät", "°": "Grad", "§": "Paragraf",
            "#": "Nummer", "½": "ein halb", "¼": "ein Viertel", "¾": "drei Viertel",
        },
        currencies={"€": ("{} Euro",), "$": ("{} Dollar",), "£": ("{} Pfund",)},
        units={
            "%": ("{} Prozent",), "°C": ("{} Grad Celsius",), "km/h": ("{} Kilometer pro Stunde",),
            "km": ("{} Kilometer",), "kg": ("{} Kilogramm",), "cm": ("{} Zentimeter",), "mm": ("{} Millimeter",),
        },
        cents=(" ",),
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
            "Ud.": "usted", "Uds.": "ustedes", "EE. UU.": "Estados Unidos", "EE.UU.": "Estados Unidos",
            "p. ej.": "por ejemplo", "etc.": "etcétera", "pág.": "página", "núm.": "número",
            "a.m.": "de la mañana", "p.m.": "de la tarde", "Av.": "avenida",
        },
        symbols={
            "&": "y", "%": "por ciento", "+": "más", "=": "igual a", "@": "arroba", "°": "grados", "#": "número",
            "½": "un medio", "¼": "un cuarto", "¾": "tres cuartos",
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
            "M.": "monsieur", "Mme": "madame", "Mlle": "mademoiselle", "Dr": "docteur",
            "etc.": "et cetera", "c.-à-d.": "c'est-à-dire", "p. ex.": "par exemple", "av.": "avenue", "n°": "numéro",
            "St": "saint", "Ste": "sainte",
        },
        symbols={
            "&": "et", "%": "pour cent", "+": "plus", "=": "égale", "@": "arobase", "°": "degrés", "#": "numéro",
            "½": "un demi", "¼": "un quart", "¾": "trois quarts",
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
            "Dott.": "dottor", "prof.": "professor", "Prof.": "professor", "ecc.": "eccetera", "pag.": "pagina",
            "p.es.": "per esempio", "a.C.": "avanti Cristo", "d.C.": "dopo Cristo",
        },
        symbols={
            "&": "e", "%": "per cento", "+": "più", "=": "uguale", "@": "chiocciola", "°": "gradi", "#": "numero",
            "½": "un mezzo", "¼": "un quarto", "¾": "tre quarti",
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
            "dr.": "doctor", "prof.": "professor", "nr.": "nummer", "a.u.b.": "alstublieft",
            "m.b.t.": "met betrekking tot",
            "i.p.v.": "in plaats van", "t/m": "tot en met", "St.": "Sint",
        },
        symbols={
            "&": "en", "%": "procent", "+": "plus", "=": "is", "@": "apenstaartje", "°": "graden", "#": "nummer",
            "½": "een half", "¼": "een kwart", "¾": "drie kwart",
        },
        currencies={"€": ("{} euro",), "$": ("{} dollar",), "£": ("{} pond",)},
        units={
            "%": ("{} procent",), "°C": ("{} graden Celsius",), "km/h": ("{} kilometer per uur",),
            "km": ("{} kilometer",), "kg": ("{} kilo",), "cm": ("{} centimeter",), "mm": ("{} millimeter",),
        },
        cents=(" ",),
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
            "тыс.": "тысяч", "млн": "миллионов", "млрд": "миллиардов", "им.": "имени",
        },
        symbols={
            "&": "и", "%": "процентов", "+": "плюс", "=": "равно", "@": "собака", "°": "градусов", "№": "номер",
            "½": "одна вторая", "¼": "одна четвёртая", "¾": "три четвёртых",
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
        symbols={"&": "和", "%": "百分号", "+": "加", "=": "等于", "@": "at", "°": "度", "#": "号", "½": "二分之一"},
        currencies={"¥": ("{}元",), "$": ("{}美元",), "€": ("{}欧元",), "£": ("{}英镑",)},
        units={
            "%": ("百分之{}",), "°C": ("{}摄氏度",), "km/h": ("每小时{}公里",), "km": ("{}公里",), "kg": ("{}公斤",),
            "cm": ("{}厘米",), "mm": ("{}毫米",),
        },
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
            "&": "و", "%": "درصد", "٪": "درصد", "+": "به علاوه", "=": "مساوی", "@": "ات", "°": "درجه", "#": "شماره",
            "½": "یک دوم", "¼": "یک چهارم", "¾": "سه چهارم",
        },
        currencies={"$": ("{} دلار",), "£": ("{} پوند",), "€": ("{} یورو",), "﷼": ("{} ریال",)},
        units={
            "%": ("{} درصد",), "٪": ("{} درصد",), "°C": ("{} درجه سانتی‌گراد",), "km": ("{} کیلومتر",),
            "kg": ("{} کیلوگرم",), "cm": ("{} سانتی‌متر",),
        },
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
    """The language of this name; any other espeak-ng voice is taken as a language without rules of its own."""
    return LANGUAGES.get(name) or Language(voice=name)


def code_of(locale: str) -> str:
    """The language of a locale as corpora write it: `zh-CN` and `zh_TW` are `zh`, `en-GB` is `en-gb`."""
    name = locale.strip().replace("_", "-").lower()
    return name if name in LANGUAGES else name.partition("-")[0]
