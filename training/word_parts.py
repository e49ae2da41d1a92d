"""What the texts of drawn words are put together from."""

# fmt: off
STREETS = (
    "St", "Ave", "Rd", "Blvd", "Dr", "Ln", "Pl", "Sq", "Hwy", "Ct", "Way", "Inn", "Bar", "Cafe", "Co",
    "Ltd",
)
TOP_DOMAINS = (
    "com", "com", "com", "org", "net", "co.uk", "info", "edu", "gov", "de", "fr", "sg", "in", "au", "tv",
)
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
UNITS = (
    "km", "kg", "ml", "mm", "cm", "m", "g", "L", "th", "st", "nd", "rd", "am", "pm", "AM", "PM", "W", "V",
    "x",
)
AROUND = ("%", "+", "-", ".", ",", ")", "/", "'", '"')
BEFORE = ("#", "No.", "-", "(", "+", "A", "B", "M", "E", "US-")
PUNCTUATED = (
    "{}'s", "{}'S", "{}.", "{}.", "{},", "{},", "{}!", "{}!", "{}?", "{}:", "{}:", '"{}"', '"{}', '{}"',
    "({})", "({}", "{})", "'{}'", "-{}", "{}-", "*{}", "{}*", "#{}", "@{}", "{}...", "&{}", "{}&",
    "{}/", "{};", "[{}]", "{}+", "{}_{}", "{}-{}", "{}/{}", "{}&{}", "{}.{}",
)
PRICES = ("${}", "${}.{}", "${}.{}", "${},{}", "{}.{}", "{}-", "{}.{}", "${}-", "{}$", "Rs{}", "S${}", "{}%")
# By themselves: small letters that do not look like a capital or a digit of another size, and signs.
LOWER_ALONE, SIGNS_ALONE = "abdefghijkmnqrtuy", "&&&&!!?$%+-#@*"
# Makes long words of short ones.
BEGINNINGS = (
    "inter", "counter", "electro", "micro", "over", "under", "hyper", "trans", "multi", "photo", "super",
    "tele", "auto", "bio", "geo", "psycho", "hydro", "thermo", "pseudo", "ultra", "semi", "non", "un", "re",
)
ENDINGS = (
    "ization", "ational", "ability", "lessness", "fulness", "mentation", "ically", "ologist", "ographic",
    "ing", "ed", "er", "ers", "ly", "ment", "ness", "ship", "haus", "strasse", "gasse", "markt", "stadt",
    "shire", "ville", "burgh", "werke", "platz", "berg", "land", "weg", "park", "house",
)
CURRENCIES = ("RM", "$", "$", "S$", "Rs.", "USD", "EUR", "MYR", "US$")
ON_RECEIPTS = """
    total subtotal sub-total cash change tax gst vat qty amount amt item price u/price u/p discount disc rounding
    round invoice receipt date time cashier table member visa mastercard card balance tender due net gross nett
    payment sales sr zrl zr no bill order description code reg tel fax thank you please come again welcome
    customer counter pos copy original approval ref batch terminal trans id gst-id summary rate inclusive excl incl
    s/price savings points total-incl c.cash e.&.o.e. goods sold returnable exchange within days"""
# So that the command draws something sensible on a machine without any word list.
FEW_WORDS = """
    the and of to hotel street open sale bank coffee shop house market road exit stop park city center
    restaurant bar food fresh new free welcome school museum library station police fire water north
    south east west main first second company service office building parking entrance closed push pull
    please danger warning keep clear private public national american royal king queen golden silver red
    blue green white black bread beer wine pizza burger chicken fish books music photo print phone
    mobile computer world time life love home family health care dental clinic hospital pharmacy beauty
    hair nails salon fashion shoes sports golf tennis football theatre cinema studio gallery art design
    garden flowers travel tours airport taxi bus train"""
# fmt: on
