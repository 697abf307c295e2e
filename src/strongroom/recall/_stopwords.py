# ruff: noqa: RUF001 (Cyrillic words hold Cyrillic letters)
"""Words that carry no topic, by language; of languages that are not here every word counts."""

from __future__ import annotations

from typing import Final

_ENGLISH = """
a about above after again against all also am an and any are aren't as at be because been before
being below between both but by can can't cannot could couldn't did didn't do does doesn't doing
don't down during each few for from further had hadn't has hasn't have haven't having he he's her
here hers herself him himself his how i i'd i'll i'm i've if in into is isn't it it's its itself
just let's me more most my myself no nor not of off on once only or other our ours ourselves out
over own s same shan't she she's should shouldn't so some such t than that that's the their theirs
them themselves then there there's these they they're they've this those through to too under until
up us very was wasn't we we're we've were weren't what what's when where which while who whom why
will with won't would wouldn't you you'd you'll you're you've your yours yourself yourselves
"""

_GERMAN = """
aber alle allem allen aller alles als also am an ander andere anderen auch auf aus bei bin bis bist
da damit dann das dass daß dein deine dem den denn der des dessen dich die dies diese diesem diesen
dieser dieses dir doch dort du durch ein eine einem einen einer eines einige er es etwas euch euer
eure für gegen hab habe haben hat hatte hatten hier hin hinter ich ihm ihn ihnen ihr ihre ihrem
ihren ihrer im in indem ins ist jede jedem jeden jeder jedes jene jetzt kann kein keine keinem
keinen können könnte machen man manche mein meine mich mir mit muss musste nach nicht nichts noch
nun nur ob oder ohne sehr sein seine seinem seinen seiner seit sich sie sind so solche soll sollte
sondern sonst um und uns unser unter viel vom von vor war waren was weil welche welcher wenn werde
werden wie wieder will wir wird wo wollen wurde wurden würde zu zum zur zwar zwischen über
"""

_FRENCH = """
ai au aux avaient avais avait avec avez avoir avons c c'est ce ceci cela ces cet cette d d'un d'une
dans de des du elle elles en est et eu eux fait ici il ils j j'ai je l la le les leur leurs lui m ma
mais me mes moi mon même n n'est ne nos notre nous on ont ou où par pas pour qu qu'elle qu'il quand
que quel quelle quelles quels qui s sa sans se sera ses si soi son sont suis sur t ta te tes toi ton
tu un une vos votre vous y à étaient étais était été être
"""

_SPANISH = """
a al algo algunas algunos ante antes como con contra cual cuando de del desde donde durante e el
ella ellas ellos en entre era eran es esa esas ese eso esos esta estaba estar estas este esto estos
está están fue fueron ha había han hasta hay la las le les lo los me mi mis mucho muchos muy más mí
nada ni no nos nosotros nuestra nuestro o os otra otro otros para pero poco por porque que quien
quienes qué se sea ser si sido sin sobre son soy su sus sí también tan tanto te tiene tienen todo
todos tu tus tú un una unas uno unos usted ustedes y ya yo él
"""

_ITALIAN = """
a abbiamo ad agli ai al alla alle allo anche avere aveva c che chi ci ciò come con contro cui da
dagli dai dal dalla dalle dallo degli dei del della delle dello di dove e ed era erano essere fra
gli ha hai hanno ho i il in io l la le lei li lo loro lui ma mi mia mie miei mio ne negli nei nel
nella nelle nello noi non nostra nostro o per perché più quale quando quanto quella quelle quelli
quello questa queste questi questo se sei si sia siamo sono su sua sue sugli sui sul sulla suo suoi
te ti tra tu tua tuo tutti tutto un una uno vi voi è
"""

_PORTUGUESE = """
a ao aos aquela aquele aquilo as até com como da das de dela dele deles depois do dos e ela elas ele
eles em entre era eram essa esse esta estar este está estão eu foi foram há isso isto já lhe mais
mas me mesmo meu minha muito na nas nem no nos nossa nosso num numa não nós o os ou para pela pelas
pelo pelos por qual quando que quem se sem ser seu seus somos sou sua suas são só também te tem
tinha tu tudo têm um uma você vocês às é
"""

_DUTCH = """
aan al alles als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus een en er
ge geen had heb hebben heeft hem het hier hij hoe hun iemand iets ik in is ja je jij jullie kan kon
kunnen maar me meer men met mij mijn moet na naar niet niets nog nu of om omdat ons onze ook op over
te tegen toch toen tot u uit uw van veel voor want waren was wat we werd wezen wie wij wil worden
zal ze zelf zich zij zijn zo zonder zou
"""

_SWEDISH = """
alla allt att av blev bli blir de dem den denna deras dess det detta dig din där då efter ej eller
en er ett från för ha hade han hans har henne hennes hon honom hur här i icke ingen inom inte jag ju
kan kunde man med mellan men mig min mot mycket ni nu när någon något några och om oss på samma
sedan sig sin sina ska skulle som så till under upp ut utan vad var vara varför vi vid vilka vilken
är över
"""

_NORWEGIAN = """
alle at av bare begge ble blei bli både da de deg dei dem den denne der dere det dette du då eg ei
eit eller en er et etter for fordi fra før ha hadde han har henne her hos hun hva hvem hver hvilken
hvis hvor hvordan hvorfor i ikke ingen inn jeg kan kom kunne man med meg mellom men min mot mye
mykje nå når og også om opp oss på samme seg selv si sin sitt skal skulle som så til um under ut
uten var vart ved vi vil ville være vært å
"""

_DANISH = """
af alle alt anden at blev blive bliver da de dem den denne der deres det dette dig din disse dog du
efter eller en end er et for fra ham han hans har havde have hende hendes her hos hun hvad hvis hvor
i ikke ind jeg jer jo kunne man mange med meget men mig min mit mod ned noget nogle nu når og også
om op os over på selv sig sin skal skulle som sådan til ud under var vi vil ville vor være været
"""

_FINNISH = """
ei eivät emme en et ette että he hän ja joka jos jossa jotka kanssa koska kuin kun me mikä minä mitä
mutta myös ne niin nyt näin ole oli olivat olla on ovat se sekä sen siitä sinä tai te tämä tässä
vaan vai vaikka voi
"""

_RUSSIAN = """
а без более бы был была были было быть в вам вас весь во вот все всех всё вы где да даже для до его
ее если есть еще ещё её же за здесь и из или им их к как ко когда кто ли либо мне может мы на надо
наш не него нее нет ни них но ну о об однако он она они оно от очень по под при с со так также такой
там те тем то того тоже той только том ты у уже хотя чего чей чем что чтобы эта эти это этот я
"""

STOP_WORDS: Final[dict[str, frozenset[str]]] = {
    "english": frozenset(_ENGLISH.split()),
    "german": frozenset(_GERMAN.split()),
    "french": frozenset(_FRENCH.split()),
    "spanish": frozenset(_SPANISH.split()),
    "italian": frozenset(_ITALIAN.split()),
    "portuguese": frozenset(_PORTUGUESE.split()),
    "dutch": frozenset(_DUTCH.split()),
    "swedish": frozenset(_SWEDISH.split()),
    "norwegian": frozenset(_NORWEGIAN.split()),
    "danish": frozenset(_DANISH.split()),
    "finnish": frozenset(_FINNISH.split()),
    "russian": frozenset(_RUSSIAN.split()),
}
