"""What bee-tiny knows by heart: plain tables, easy to read and to lengthen."""

# ruff: noqa: E501, SIM905 - tables of words read better wide

from typing import Final

CAPITALS: Final = {
    "Norway": "Oslo", "Sweden": "Stockholm", "Denmark": "Copenhagen", "Finland": "Helsinki",
    "Iceland": "Reykjavik", "Germany": "Berlin", "France": "Paris", "Spain": "Madrid",
    "Portugal": "Lisbon", "Italy": "Rome", "Greece": "Athens", "Austria": "Vienna",
    "Switzerland": "Bern", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Luxembourg": "Luxembourg", "Ireland": "Dublin", "England": "London",
    "the United Kingdom": "London", "Scotland": "Edinburgh", "Wales": "Cardiff",
    "Poland": "Warsaw", "the Czech Republic": "Prague", "Slovakia": "Bratislava",
    "Hungary": "Budapest", "Romania": "Bucharest", "Bulgaria": "Sofia", "Serbia": "Belgrade",
    "Croatia": "Zagreb", "Slovenia": "Ljubljana", "Albania": "Tirana", "Estonia": "Tallinn",
    "Latvia": "Riga", "Lithuania": "Vilnius", "Ukraine": "Kyiv", "Russia": "Moscow",
    "Turkey": "Ankara", "Egypt": "Cairo", "Morocco": "Rabat", "Kenya": "Nairobi",
    "Ethiopia": "Addis Ababa", "Ghana": "Accra", "Nigeria": "Abuja", "Senegal": "Dakar",
    "Tunisia": "Tunis", "India": "New Delhi", "Nepal": "Kathmandu", "China": "Beijing",
    "Japan": "Tokyo", "South Korea": "Seoul", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Indonesia": "Jakarta", "the Philippines": "Manila", "Iran": "Tehran", "Iraq": "Baghdad",
    "Saudi Arabia": "Riyadh", "Canada": "Ottawa", "the United States": "Washington",
    "Mexico": "Mexico City", "Cuba": "Havana", "Brazil": "Brasilia", "Argentina": "Buenos Aires",
    "Chile": "Santiago", "Peru": "Lima", "Colombia": "Bogota", "Ecuador": "Quito",
    "Venezuela": "Caracas", "Uruguay": "Montevideo", "Australia": "Canberra",
    "New Zealand": "Wellington",
}  # fmt: skip

COUNTRY_NICKNAMES: Final = {
    "the USA": "the United States", "the US": "the United States", "USA": "the United States",
    "America": "the United States", "the UK": "the United Kingdom", "UK": "the United Kingdom",
    "Great Britain": "the United Kingdom", "Holland": "the Netherlands",
    "Czechia": "the Czech Republic", "Netherlands": "the Netherlands", "Korea": "South Korea",
    "the United States of America": "the United States", "United States": "the United States",
    "Philippines": "the Philippines", "United Kingdom": "the United Kingdom",
}  # fmt: skip

OPPOSITES: Final = {
    "hot": "cold", "big": "small", "up": "down", "day": "night", "fast": "slow",
    "happy": "sad", "wet": "dry", "light": "dark", "high": "low", "open": "closed",
    "old": "young", "new": "old", "good": "bad", "hard": "soft", "left": "right",
    "long": "short", "tall": "short", "rich": "poor", "strong": "weak", "full": "empty",
    "early": "late", "loud": "quiet", "clean": "dirty", "near": "far", "in": "out", "on": "off",
    "yes": "no", "true": "false", "black": "white", "thick": "thin", "wide": "narrow",
    "heavy": "light", "deep": "shallow", "sweet": "sour", "first": "last", "begin": "end",
    "start": "stop", "love": "hate", "win": "lose", "push": "pull", "give": "take",
    "buy": "sell", "laugh": "cry", "always": "never", "inside": "outside", "above": "below",
    "before": "after", "front": "back", "top": "bottom", "north": "south", "east": "west",
    "smooth": "rough", "sharp": "blunt", "brave": "afraid", "easy": "difficult",
    "cheap": "expensive", "awake": "asleep", "alive": "dead", "more": "less", "many": "few",
    "friend": "enemy", "summer": "winter", "sunrise": "sunset", "question": "answer",
    "come": "go", "remember": "forget", "find": "lose", "warm": "cool", "safe": "dangerous",
    "beautiful": "ugly", "kind": "mean", "noisy": "quiet", "large": "small", "little": "big",
    "over": "under", "same": "different", "right": "wrong", "war": "peace",
    "morning": "evening", "male": "female", "tight": "loose", "ancient": "modern",
}  # fmt: skip
TWO_WAY: Final = frozenset(
    "hot big up day fast happy wet light high open good hard left long rich strong full early "
    "loud clean near in on yes true black thick wide deep sweet first love win push give buy "
    "laugh always inside above before front top north east smooth brave easy cheap awake alive "
    "more many friend summer sunrise question come remember warm safe beautiful kind over same "
    "war morning tight ancient".split()
)

COLOURS: Final = {
    "the sky": "blue", "grass": "green", "a banana": "yellow", "a strawberry": "red",
    "a carrot": "orange", "snow": "white", "coal": "black", "a lemon": "yellow",
    "the sun": "yellow", "a tomato": "red", "chocolate": "brown", "blood": "red",
    "a leaf": "green", "milk": "white", "the sea": "blue", "the ocean": "blue",
    "a frog": "green", "a plum": "purple", "a pumpkin": "orange", "a flamingo": "pink",
    "a pig": "pink", "an elephant": "grey", "a crow": "black", "a raven": "black",
    "a swan": "white", "a cherry": "red", "a cucumber": "green", "a pea": "green",
    "an orange": "orange", "a ruby": "red", "an emerald": "green", "a sapphire": "blue",
    "gold": "yellow", "silver": "grey", "salt": "white", "sugar": "white", "coffee": "brown",
    "a fire engine": "red", "a polar bear": "white", "a bear": "brown", "honey": "golden",
    "a bee": "yellow and black", "a zebra": "black and white", "a panda": "black and white",
    "a penguin": "black and white", "the night": "black", "a cloud": "white", "butter": "yellow",
    "a potato": "brown", "a blueberry": "blue", "a violet": "purple", "lavender": "purple",
    "a lobster": "red", "wood": "brown", "spinach": "green", "broccoli": "green",
    "a sunflower": "yellow", "a mouse": "grey", "a rose": "red", "an apple": "red",
    "a fox": "orange", "ink": "black", "paper": "white", "rice": "white", "a lime": "green",
    "a peach": "orange", "a canary": "yellow", "mud": "brown", "a ladybird": "red and black",
    "a tiger": "orange and black", "an egg": "white", "the moon": "white", "fire": "orange",
}  # fmt: skip

MIXES: Final = {
    ("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple",
    ("red", "white"): "pink", ("black", "white"): "grey",
}  # fmt: skip

SOUNDS: Final = {
    "dog": "woof", "cat": "meow", "cow": "moo", "sheep": "baa", "pig": "oink", "duck": "quack",
    "bee": "buzz", "lion": "roar", "horse": "neigh", "frog": "ribbit", "snake": "hiss",
    "owl": "hoot", "rooster": "cock-a-doodle-doo", "hen": "cluck", "mouse": "squeak",
    "bird": "tweet", "wolf": "howl", "goat": "maa", "donkey": "hee-haw", "crow": "caw",
    "goose": "honk", "turkey": "gobble", "bear": "growl", "chick": "cheep", "tiger": "roar",
    "kitten": "mew", "dove": "coo", "elephant": "trumpet", "fly": "buzz", "cuckoo": "cuckoo",
}  # fmt: skip

YOUNG: Final = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "pig": "piglet",
    "duck": "duckling", "horse": "foal", "hen": "chick", "goat": "kid", "lion": "cub",
    "bear": "cub", "frog": "tadpole", "goose": "gosling", "deer": "fawn", "kangaroo": "joey",
    "swan": "cygnet", "butterfly": "caterpillar", "rabbit": "kit", "fox": "cub", "owl": "owlet",
    "elephant": "calf", "whale": "calf", "bee": "larva", "wolf": "pup", "seal": "pup",
    "tiger": "cub", "human": "baby", "eagle": "eaglet", "chicken": "chick", "zebra": "foal",
}  # fmt: skip

LEGS: Final = {
    "dog": 4, "cat": 4, "cow": 4, "horse": 4, "sheep": 4, "pig": 4, "duck": 2, "bird": 2,
    "bee": 6, "ant": 6, "spider": 8, "fish": 0, "snake": 0, "frog": 4, "hen": 2, "mouse": 4,
    "lion": 4, "elephant": 4, "butterfly": 6, "fly": 6, "beetle": 6, "goat": 4, "rabbit": 4,
    "bear": 4, "human": 2, "person": 2, "owl": 2, "worm": 0, "octopus": 0, "wasp": 6, "crab": 10,
    "chair": 4, "table": 4, "penguin": 2, "chicken": 2, "insect": 6,
}  # fmt: skip

HOMES: Final = {
    "bee": "a hive", "bird": "a nest", "dog": "a kennel", "horse": "a stable", "fish": "water",
    "fox": "a den", "bear": "a cave", "rabbit": "a burrow", "spider": "a web", "pig": "a sty",
    "cow": "a barn", "ant": "an anthill", "lion": "a den", "hen": "a coop", "owl": "a tree",
    "frog": "a pond", "whale": "the sea", "camel": "the desert", "penguin": "the cold south",
    "monkey": "the jungle", "snail": "a shell", "mole": "a tunnel", "beaver": "a lodge",
    "shark": "the sea", "eagle": "a nest", "mouse": "a hole", "crab": "the sea",
}  # fmt: skip

FOODS: Final = {
    "bee": "nectar", "cow": "grass", "rabbit": "carrots", "mouse": "cheese", "cat": "fish",
    "dog": "meat", "monkey": "bananas", "panda": "bamboo", "lion": "meat", "horse": "hay",
    "squirrel": "nuts", "bear": "honey", "frog": "flies", "bird": "seeds", "spider": "flies",
    "sheep": "grass", "owl": "mice", "caterpillar": "leaves", "seal": "fish", "shark": "fish",
}  # fmt: skip

KINDS: Final = {
    "animal": "dog cat cow horse sheep pig duck lion tiger bear wolf fox rabbit mouse elephant "
    "giraffe zebra monkey frog goat deer camel whale penguin owl",
    "fruit": "apple banana orange pear grape cherry plum lemon strawberry peach mango melon kiwi",
    "vegetable": "carrot potato onion cabbage pea bean cucumber pumpkin leek spinach broccoli",
    "colour": "red blue green yellow orange purple pink brown black white grey",
    "tool": "hammer saw spade rake drill wrench screwdriver axe",
    "bird": "owl eagle swan duck crow robin sparrow penguin hen dove",
    "insect": "bee ant fly beetle butterfly wasp moth ladybird",
    "flower": "rose tulip daisy lily sunflower violet poppy",
    "tree": "oak pine birch maple willow",
    "drink": "water milk juice tea coffee lemonade",
    "metal": "iron gold silver copper tin lead",
    "shape": "circle square triangle star heart",
    "vehicle": "car bus train bicycle boat truck tram",
    "instrument": "piano guitar violin drum flute trumpet harp",
    "planet": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
    "city": "Oslo Paris London Rome Berlin Tokyo Madrid",
    "country": "Norway Spain France Italy Japan Canada Brazil Egypt",
    "fish": "salmon cod herring trout tuna shark",
    "sport": "football tennis chess swimming running skiing",
}  # fmt: skip

MEANINGS: Final = {
    "bee": "A bee is a small insect that makes honey.",
    "honey": "Honey is a sweet food that bees make from nectar.",
    "hive": "A hive is a home for bees.",
    "sun": "The sun is a star that gives us light and warmth.",
    "moon": "The moon goes around the earth and shines at night.",
    "rain": "Rain is water that falls from clouds.",
    "snow": "Snow is frozen water that falls in white flakes.",
    "ice": "Ice is frozen water.",
    "river": "A river is water that flows to the sea.",
    "mountain": "A mountain is a very high hill.",
    "island": "An island is land with water all around it.",
    "forest": "A forest is a place with many trees.",
    "book": "A book is many pages that you can read.",
    "house": "A house is a building where people live.",
    "school": "A school is a place where children learn.",
    "doctor": "A doctor is a person who helps sick people.",
    "teacher": "A teacher is a person who helps others learn.",
    "farmer": "A farmer is a person who grows food.",
    "baker": "A baker is a person who makes bread.",
    "computer": "A computer is a machine that works with numbers and words.",
    "robot": "A robot is a machine that can do work.",
    "clock": "A clock is a thing that shows the time.",
    "friend": "A friend is a person you like and trust.",
    "winter": "Winter is the cold season of the year.",
    "summer": "Summer is the warm season of the year.",
    "bread": "Bread is a food made from flour and water.",
    "chair": "A chair is a thing to sit on.",
    "bed": "A bed is a thing to sleep in.",
    "number": "A number tells you how many.",
    "letter": "A letter is one part of a written word.",
    "language model": "A language model is a program that writes the next word.",
    "token": "A token is a small piece of text.",
    "GPU": "A GPU is a chip that does many sums at once.",
    "server": "A server is a computer that answers other computers.",
    "JSON": "JSON is a way to write data as text.",
    "Python": "Python is a programming language.",
}  # fmt: skip

AMOUNTS: Final = {
    "days are in a week": ("A week has 7 days.", "days does a week have"),
    "months are in a year": ("A year has 12 months.", "months does a year have"),
    "days are in a year": ("A year has 365 days.", "days does a year have"),
    "hours are in a day": ("A day has 24 hours.", "hours does a day have"),
    "minutes are in an hour": ("An hour has 60 minutes.", "minutes does an hour have"),
    "seconds are in a minute": ("A minute has 60 seconds.", "seconds does a minute have"),
    "letters are in the alphabet": ("The alphabet has 26 letters.", "letters has the alphabet"),
    "seasons are in a year": ("A year has 4 seasons.", "seasons does a year have"),
    "fingers are on a hand": ("A hand has 5 fingers.", "fingers does a hand have"),
    "sides are in a triangle": ("A triangle has 3 sides.", "sides does a triangle have"),
    "sides are in a square": ("A square has 4 sides.", "sides does a square have"),
    "wheels are on a car": ("A car has 4 wheels.", "wheels does a car have"),
    "wheels are on a bicycle": ("A bicycle has 2 wheels.", "wheels does a bicycle have"),
    "weeks are in a year": ("A year has 52 weeks.", "weeks does a year have"),
    "eggs are in a dozen": ("A dozen is 12.", "is a dozen"),
    "planets are in the solar system": (
        "The solar system has 8 planets.", "planets does the solar system have"
    ),
}  # fmt: skip

DAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS: Final = (
    "January February March April May June July August September October November December"
).split()
SEASONS: Final = "spring summer autumn winter".split()
ORDINALS: Final = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
).split()
NUMBERS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()

PLURALS: Final = {
    "mouse": "mice", "child": "children", "man": "men", "woman": "women", "foot": "feet",
    "tooth": "teeth", "goose": "geese", "sheep": "sheep", "fish": "fish", "leaf": "leaves",
    "wolf": "wolves", "knife": "knives", "city": "cities", "baby": "babies", "box": "boxes",
    "bus": "buses", "cat": "cats", "dog": "dogs", "bee": "bees", "tree": "trees",
    "house": "houses", "book": "books", "apple": "apples", "person": "people", "ox": "oxen",
    "car": "cars", "bird": "birds", "flower": "flowers", "cherry": "cherries", "fox": "foxes",
}  # fmt: skip
PASTS: Final = {
    "go": "went", "run": "ran", "eat": "ate", "see": "saw", "sing": "sang", "fly": "flew",
    "swim": "swam", "write": "wrote", "give": "gave", "take": "took", "find": "found",
    "make": "made", "come": "came", "drink": "drank", "sleep": "slept", "buy": "bought",
    "walk": "walked", "play": "played", "jump": "jumped", "think": "thought", "know": "knew",
    "speak": "spoke", "break": "broke", "fall": "fell", "is": "was", "have": "had",
}  # fmt: skip

NAMES: Final = (
    "Ann Ben Mia Tom Eva Max Lily Sam Nora Leo Ida Finn Emma Noah Ella Jack Olga Paul Rosa Hugo "
    "Anna Bob Alice Peter Maria John Kate Lars Ingrid Omar Amina Yuki Chen Priya Ali Sofia Oscar "
    "Clara Otto Vera Karl Zoe Ivan Lucy Mark Sara Adam Jane Erik Tina David Laura Henry Nina"
).split()
SPELLABLE: Final = (
    "bee cat dog sun moon tree house apple water bread honey flower garden school friend mother "
    "father sister brother window door table chair book paper pencil green yellow orange purple "
    "happy little hello world summer winter spring autumn river mountain forest animal elephant "
    "giraffe monkey tiger rabbit banana cherry lemon tomato potato carrot cheese butter sugar "
    "music song dance story letter number seven eight three twelve twenty morning evening night "
    "star cloud rain snow wind storm thunder ocean island boat train car bus bicycle street city "
    "village country doctor teacher farmer baker king queen prince castle dragon magic dream "
    "light dark fire stone glass metal wood gold silver hand foot head heart eye ear nose mouth "
    "finger knee shirt shoe hat coat sock kitchen bedroom bottle spoon fork knife plate cup "
    "computer robot server python keyboard screen mouse phone camera radio clock watch minute "
    "hour week month year today tomorrow yesterday always never maybe quick brown lazy jump run "
    "walk swim sleep write read speak listen learn think know give take make open close begin "
    "beautiful wonderful butterfly strawberry chocolate breakfast birthday holiday football "
    "pizza soup salad juice coffee tea milk egg fish meat rice bean nut worker hive queen swarm "
    "wing nectar pollen bear wolf fox owl duck goose horse sheep goat pig cow hen frog snake "
    "spider ant beetle planet earth mars rocket space engine wheel bridge tower church market "
    "shop money dollar price game ball toy doll puzzle color colour circle square triangle line "
    "giant tiny small large long short tall strong weak brave kind clever funny angry hungry "
    "thirsty tired ready sorry please thanks welcome goodbye yes blue red black white pink grey"
).split()
MORE_WORDS: Final = (
    "rbee supervisor server worker model token engine process memory network system program language question "
    "answer example problem number reason result person people family child woman man baby uncle aunt cousin "
    "neighbour guest nurse driver painter singer writer soldier sailor judge lawyer pilot captain president minister "
    "apple grape orange melon cherry onion pepper pasta sauce cake candy cream biscuit dinner lunch supper meal "
    "leg arm back neck tooth hair skin bone blood brain stomach shoulder face body voice smile laughter tear sleep "
    "field hill valley lake pond beach coast sand rock cave path road corner garden fence gate roof wall floor "
    "ceiling stairs cellar attic bath shower mirror lamp sofa shelf drawer curtain cushion towel soap brush comb "
    "needle thread button pocket jacket trousers dress skirt glove scarf boot belt ring necklace watch purse wallet "
    "key lock box basin bucket rope nail screw paint glue tape string ribbon parcel letter stamp envelope postcard "
    "newspaper magazine library museum theatre cinema stadium station airport hotel restaurant hospital office "
    "factory farm barn stable mill harvest wheat corn barley oats straw hay soil seed root branch leaf blossom "
    "necessary important possible different difficult special certain simple single double whole half quarter "
    "several enough almost already often sometimes usually perhaps together apart forward backward around between "
    "against without within during until because although however therefore another nothing something everything "
    "anybody nobody everyone yourself myself believe receive achieve begin become bring build catch choose climb "
    "collect compare continue cover create decide describe destroy discover divide dream drive enjoy explain follow "
    "forgive gather happen hurry imagine invite knock laugh learn leave listen measure notice offer order prepare "
    "promise protect publish question reach repeat return scratch search share shout spread squeeze stretch surprise "
    "thank touch travel understand visit whisper wonder worry blanket chimney diamond feather giant holiday journey "
    "kingdom lantern meadow orchard palace quarrel rainbow shadow treasure umbrella violin whistle yellow zebra "
    "science history geography physics chemistry biology mathematics grammar alphabet dictionary sentence paragraph "
    "rhythm knight castle sword shield crown throne dragon wizardry witch fairy ghost monster giant dwarf elf"
).split()
OTHER_COUNTRIES: Final = (
    "Malta Cyprus Monaco Libya Algeria Sudan Somalia Uganda Tanzania Rwanda Zambia Zimbabwe Angola Namibia Botswana "
    "Mali Niger Chad Congo Cameroon Gabon Mauritania Gambia Liberia Togo Benin Syria Lebanon Jordan Israel Kuwait "
    "Qatar Oman Yemen Afghanistan Pakistan Bangladesh Bhutan Myanmar Laos Cambodia Malaysia Singapore Mongolia "
    "Kazakhstan Uzbekistan Georgia Armenia Azerbaijan Moldova Belarus Bosnia Kosovo Montenegro Andorra Liechtenstein "
    "Bolivia Paraguay Guyana Suriname Panama Honduras Guatemala Nicaragua Jamaica Haiti Fiji Samoa Tonga Madagascar"
).split()
