"""Common English words for prompts without the model's tokenizer."""

# Short and common: byte-pair vocabularies of current models hold each of them, with the space before it, as one
# token.
COMMON_WORDS: tuple[str, ...] = tuple(
    """
    able about above across act action add after again against age ago agree air all almost alone along
    already also always am among amount and animal another answer any area arm army around art as ask at
    away baby back bad bag ball bank base bed been before began begin behind being below best better
    between big bird bit black blood blue board boat body bone book both bottom box boy bread break bring
    brother brown build burn business but buy by call came camp can car card care carry case cat catch
    cause center century certain chair chance change charge check child children choose church city claim
    class clean clear close cloth cloud coast coffee cold color come common company complete contain
    control cook cool copy corn corner cost could count country course cover cross crowd cry current cut
    dance dark data date daughter day dead deal death decide deep degree depend design did die dinner
    direct discuss do doctor does dog dollar done door doubt down draw dream dress drink drive drop dry
    during each ear early earth east easy eat edge effect egg eight either else end energy engine enjoy
    enough enter equal even evening event ever every exact example expect experience explain eye face fact
    fall family famous far farm fast father fear feel feet fell felt few field fight figure fill film
    final find fine finger finish fire first fish fit five floor flow flower fly follow food foot for
    force foreign forest form forward found four free fresh friend from front fruit full fun game garden
    gas gave general get girl give glad glass go gold gone good got government grass great green ground
    group grow guess gun had hair half hand happen happy hard has hat have he head hear heart heat heavy
    held help her here high hill him his history hit hold home hope horse hospital hot hotel hour house
    how huge human hundred ice idea if image in inside interest into iron island issue it its job join
    just keep kept key kind king kitchen knew know lake land language large last late laugh law lay lead
    learn least leave left leg less let letter level life light like line list listen little live local
    long look lost lot love low machine made main make man many map mark market matter may me mean measure
    meet member men might mile milk million mind minute miss modern moment money month moon more morning
    most mother mountain mouth move much music must my name nation nature near need never new news next
    night nine no noise north nose note nothing notice now number object ocean of off offer office often
    oil old on once one only open or order other our out outside over own page paint pair paper park part
    party pass past path pay peace people perhaps period person picture piece place plan plant play please
    point poor popular position possible power present president press pretty price print problem produce
    program public pull purpose push put quality question quick quiet quite race radio rain ran rate reach
    read ready real reason receive record red remember report rest result return rich ride right ring rise
    river road rock role roll room round rule run safe said salt same sand sat save saw say school science
    sea season seat second see seem self sell send sense sent serve service set seven several shall shape
    share she ship shoe shop short should show side sign simple since sing single sister sit six size skin
    sky sleep slow small smile snow so social soft soil soldier some son song soon sort sound source south
    space speak special speed spend spoke sport spot spring square stage stand star start state station
    stay step still stone stood stop store story street strong student study such sugar summer sun support
    sure surface system table take talk tall tax teach team tell ten term test than thank that the their
    them then there these they thing think third this those though thought thousand three through time to
    today together told tonight too took top total touch toward town track trade train travel tree trip
    trouble true try turn two type under unit until up upon us use usual valley value very view village
    visit voice wait walk wall want war warm was wash watch water wave way we weather week weight well
    went were west what wheel when where which while white who whole whose why wide wife wild will win
    wind window winter wish with within without woman women wonder wood word work world would write wrong
    year yes yet you young your
    """.split()  # noqa: SIM905  # a list literal would take one line per word
)
