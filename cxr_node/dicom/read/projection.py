"""What the header says of body part and projection: codes first, then words in the languages archives speak.

PS3.3 C.8.1.1, C.8.11.5 (View Position, View Code Sequence), C.7.6.1.1.1 (Patient Orientation), PS3.16 CID 4010, 4031.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom import Dataset

from cxr_node.dicom.read.character_sets import fold, is_plain, raw, words
from cxr_node.domain import View

_WITHOUT_SPACES = re.compile(r"[\u0900-\u097f\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Thai, kana, Han, Hangul; and Devanagari, whose vowel signs are no letters to a regular expression."""


def _pattern(words: str, *more: str) -> re.Pattern[str]:
    """Compile words divided by commas, and further patterns, into one."""
    return re.compile("|".join([*(_word(word.strip()) for word in words.split(",") if word.strip()), *more]))


def _word(word: str) -> str:
    folded, alone = re.escape(fold(word.strip("*="))).replace(r"\ ", " "), word.startswith("=")
    if _WITHOUT_SPACES.search(folded) and not alone:
        return folded
    before, after = (r"\w*" if mark == "*" else "" for mark in (word[0], word[-1]))
    return rf"\b{before}{folded}{after}\b"


CHEST = _pattern(
    """
    *thorax*, *thorac*, *thorak*, *torac*, *torak*, *torax*, *toras*, cxr, lung, lungs, *lunge*, *lungor*, pulm*,
    *poumon*, *polmon*, plaman*, pluc*, pljuc*, *brustkorb*, *borstkas*, *brostkorg*, *brystkasse*, *rintakeh*, pecho,
    poitrine, petto, peito, klatka, klatk* piers*, klp, hrudn*, *grudn* kos, prsni kos, *mellkas*, tüdő*, *keuhko*,
    rindkere*, kopsu*, krūškurv*, plaušu*, krūtin*, plaučiai, plaučių, longen, longfoto, *akciğer*, *göğüs*,
    *mediastin*, ngực, phổi, dada, paru, kraharor*, *груд*, огк, *легк*, *леген*, *легень*, *гръд*, бял дроб*,
    белодроб*, плућ*, *торак*, *флюорограф*, *θωρακ*, *πνευμον*, صدر*, الصدر, رئة*, الرئة, الرئتين, سينه, سینه,
    قفسه سینه, ریه, חזה, ריאה, ריאות, ทรวงอก, ปอด, หน้าอก, छाती, 胸, 肺, きょうぶ, キョウブ, ムネ, むね, 흉부, 가슴,
    =폐, 폐야, 폐사진, =흉, կրծքավանդակ*, გულმკერდ*
    """,
    r"chest(?!er)",
)
SPINE = _pattern(
    """
    *spine*, *wirbel*, bws, rachis, *columna*, colonna, coluna, *vertebr*, *rygg*, *pozvon*, páteř*, *kręgosłup*,
    *kralježnic*, *kralješ*, *gerinc*, *omurga*, selkäran*, *позвон*, *хребет*, *хребт*, *гръбнак*, *хребц*,
    *σπονδυλ*, عمود*, العمود, فقرات, עמוד שדרה, กระดูกสันหลัง
    """
)
"""Beside a word for the chest ("thoracic spine") these say that it is none."""
NOT_THE_CHEST = _pattern("胸椎, 胸骨, 胸鎖, 胸锁, 胸腰, *грудин*")
"""What is written with the chest's own letters."""

OTHER_PARTS = _pattern(
    """
    hand, hands, wrist, wrists, finger, fingers, thumb, carpus, metacarp*, elbow, elbows, shoulder, shoulders,
    clavicle, acromioclav*, acjoint, acj, scjoint, humerus, forearm, forearms, radius, ulna, upper limb, lower limb,
    upperlimb, lowerlimb, upperarm, upper arm, knee, knees, patella, ankle, ankles, toe, toes, heel, calcaneus,
    tarsus, metatars*, leg, legs, lowerleg, lower leg, thigh, hip, hips, pelvis, sacroiliac*, sijoint*, femur, tibia,
    fibula, tibfib, abdomen, abd, kub, bladder, kidney*, liver, stomach, bowel, colon, esophagus, oesophagus, skull,
    brain, sinus*, orbit, orbits, nasal*, nose, zygoma*, tmj, tmjoint, jaw, mandible, maxilla, facial*,
    face bones, neck, larynx, airway, teeth, tooth, dental, panoramic, ceph*, breast, breasts, mammo*, spine, *spine,
    sacrum, coccyx, rib, ribs, sternum, scapula, extremity, extremities, skeleton, babygram, knie, knies, fuss, füße,
    schulter, becken, hüfte, huefte, schädel, schaedel, ellenbogen, ellbogen, sprunggelenk*, oberarm, unterarm,
    oberschenkel, unterschenkel, handgelenk, *wirbelsäule, *wirbelsaeule, *wirbels*, hws, lws, bws, bauch, zahn,
    zähne, rippe*, schlüsselbein, zehe*, ferse, poignet, doigt*, coude, épaule, genou, genoux, cheville, pied, pieds,
    bassin, hanche, crâne, rachis, côtes, mano, manos, muñeca, dedo*, codo, hombro, rodilla, tobillo, pie, pies,
    cadera, cráneo, pierna, costilla*, columna, ginocchio, piede, spalla, bacino, cranio, polso, gomito, caviglia,
    anca, femore, coste, joelho, quadril, mão, punho, cotovelo, ombro, tornozelo, bacia, crânio, abdome, costela*,
    elleboog, schouder, enkel, voet, heup, bekken, schedel, buik, ręka, nadgarst*, łokieć, kolano, stopa, miednic*,
    czaszk*, brzuch*, żebr*, ruka, zápěst*, loket, rameno, koleno, kotník, noha, pánev, lebka, břicho, žebr*, csukló,
    könyök, térd, boka, medence, koponya, hånd, handled, armbåge, knä, fotled, höft, bäcken, skalle, håndledd, albue,
    skulder, ankel, hofte, käsi, kyynärpää, olkapää, polvi, nilkka, jalka, lonkka, lantio, vatsa, el bileği, dirsek,
    omuz, ayak bileği, ayak, kalça, karın, batın, kaburga*, bàn tay, cổ tay, khuỷu, cổ chân, bàn chân, кисть, кисти,
    запяст*, палец, пальц*, *локт*, лакът*, плечо*, плечев*, раме*, рамо, ключиц*, предплеч*, *колен*, колян*,
    голеностоп*, голен*, стопа, стопы, стоп, ступн*, таз, таза, тазобедр*, *бедр*, *череп*, голова, головы, глава,
    брюш*, живот*, корем*, черевн*, ребр*, рука, руки, нога, ноги, зуб*, околоносов*, придаточн*, шея, шеи, χερι*,
    ακρα χειρ*, χειρ*, καρπ*, δακτυλ*, αγκων*, ωμος, ωμου, γονατ*, ποδι*, ποδοκνημ*, λεκαν*, ισχι*, κρανι*, κεφαλ*,
    κοιλι*, αυχεν*, πλευρ* οστ*, οδοντ*, يد, اليد, معصم, الرسغ, كوع, كتف, الكتف, ركبة, الركبة, كاحل, قدم, القدم, حوض,
    الحوض, جمجمة, رأس, الرأس, بطن, البطن, دست, مچ*, آرنج, شانه, زانو, پا, لگن, جمجمه, شکم, יד, כף יד, שורש, מרפק, כתף,
    ברך, קרסול, רגל, אגן, גולגולת, ראש, בטן, มือ, ข้อมือ, ข้อศอก, ไหล่, เข่า, ข้อเท้า, เท้า, สะโพก, เชิงกราน, กะโหลก,
    ศีรษะ, ช่องท้อง, =手, 手部, 手指, 手関節, 手关节, 左手, 右手, 両手, 双手, 腕関節, 腕关节, 前腕, 上腕, 前臂, 上臂,
    肘, 肩, 鎖骨, 锁骨, =足, 足部, 左足, 右足, 足関節, 足趾, 踝, 跟骨, 膝, 大腿, 下腿, 小腿, 股関節, 股骨, 髋, 髖,
    骨盤, 骨盆, 骨盘, 頭部, 头部, 头颅, 頭蓋, 頭頸, 頭顱, 腹部, =腹, =頭, =头, 頸部, 颈部, 頚部, 頸椎, 颈椎, 頚椎,
    腰椎, 胸椎, 脊椎, 脊柱, 肋骨, 胸骨, 顎, 颌, 歯, 牙齿, 牙片, 乳房, 乳腺, 副鼻腔, 鼻窦, 鼻骨, =손, 수부, 손목, 수근,
    손가락, 팔꿈치, 주관절, 어깨, 견관절, 쇄골, 상완, 전완, 무릎, 슬관절, 발목, 족관절, =발, 족부, 대퇴, 하퇴, 고관절,
    골반, 두개, 두부, 머리, 복부, 경추, 요추, 흉추, 척추, 늑골, 흉골, 경부, 부비동, 치아, 유방
    """,
    r"(?<!\d )\b(?:foot|feet)\b",
)
"""Short words of more than one meaning ("main", "arm", "el") are left out: they are looked for in descriptions too."""
DEFINED_PARTS = frozenset({"arm", "leg", "head", "extremity", "main", "abdomenpelvis", "headneck", "cspine", "lspine"})
"""Of Body Part Examined alone; with `OTHER_PARTS` what may be repeated to people, for it is nobody's name."""
DEFINED_MODALITIES = frozenset({
    "AR", "AU", "BDUS", "BI", "BMD", "CR", "CT", "DG", "DOC", "DX", "ECG", "EPS", "ES", "FID", "GM", "HC", "HD",
    "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT",
    "OPV", "OSS", "OT", "PLAN", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN",
    "RTRECORD", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TG", "US", "VA", "XA", "XC",
})  # fmt: skip
"""Defined Terms of Modality (PS3.3 C.7.3.1.1.1): another word may be anybody's name, and is not repeated."""

LATERAL = _pattern(
    """
    ll, laterale*, lateralis, lateralt, lateraal*, lateraali*, latero, seitlich*, seitl, seitenaufn*, profil*,
    perfil*, *boczn*, *bočn*, *stransk*, sidebilde*, sidebillede*, sideopt*, sidobild*, sidoprojektion*, dwars*,
    zijdelings*, sivukuva*, sivusuun*, külg*, sānu, sānis*, šonin*, anësor*, oldalirány*, oldalfelv*, oldalnézet*,
    yan, yandan, lateralna, lateralni, nghiêng, samping, *боков*, *бічн*, бочна*, бочни*, странична, страничен,
    странично, *латерал*, *профил*, πλαγι*, πλαγιο*, πλευρικ*, جانبي*, الجانبي*, نیمرخ, جانبی, צד, צידי*, לטרלי*,
    ด้านข้าง, पार्श्व, 側面, 侧面, 側位, 侧位, 側視, 侧视, そくめん, ソクメン, ラテラル, 측면, 측위, 옆면
    """,
    r"\b(?:chest|thorax|torax|cxr|left|right|l|r|lt|rt|li|re|izq|der|gauche|droit|xt|xtable|xtbl|crosstable|horizontal"
    r"|true|standing|erect|upright|supine|sitting)*lat(?:l|r|lt|rt|left|right|eral(?:e|es|is|view)?)?\b",
)
OBLIQUE = _pattern(
    """
    obliq*, oblicu*, obl, lao, rao, lpo, rpo, schräg*, skos*, šikm*, ukośn*, косая, косой, скісн*, λοξ*, 斜位, 斜め,
    사위
    """
)
FRONTAL = _pattern(
    """
    pa, ap, p a, a p, dv, vd, frontal*, face, posteroanterior*, anteroposterior*, postero, antero, frente, față,
    sagittal, *przednio*, *tylno*, *předozad*, *zadopřed*, predozadn*, zadopredn*, szembe*, etukuva*, ön arka,
    arka ön, thẳng, depan, *прям*, *передн*, *задн*, *фронтал*, фас*, лицев*, *προσθι*, μετωπ*, أمامي*, خلفي*, امامي*,
    رخ, روبرو, קדמי*, אחורי*, หน้าตรง, ด้านหน้า, 正面, 正位, 正側, 正侧, 正 側, 正 侧, 前後, 后前, 後前, 前后, 背腹,
    腹背, 정면, 전후, 후전, decubitus, dekubitus, 側臥, 侧卧, 측와, two, zwei, deux, dos, due, both, beide*, 2方向,
    二方向, 両方向, 双方向, 양방향, 2방향
    """,
    r"\b[2-9] ?(?:views?|v|vw|vues?|ebenen|planes|proj\w*|incidenc\w*|richtungen|проекц\w*|rzut\w*|方向|방향)",
)
"""Decubitus and "two views" say nothing sure, so they too keep a word for lateral from deciding."""

VIEW_POSITIONS = re.compile(
    r"\b(?:(?:L|R|LT|RT|LEFT|RIGHT|XT|X|XTABLE|XTBL|CROSSTABLE|HORIZ|HORIZONTAL|SUPINE|STANDING|ERECT|UPRIGHT|TRUE|ML|LM"
    r"|MEDIO|LATERO|CHEST)*[ -]?LAT(?:ERAL\w*|L|R|LT|RT)?|LL|RL|ML|LM|MLO|LMO|CC|XCCL\w*|SEITL(?:ICH)?|PROFIL\w*|PERFIL"
    r"|[LR]PROFIL\w*|LLD|RLD|LLO|RLO|LAO|RAO|LPO|RPO|OBL\w*)\b"
)
"""Terms of View Position that are no frontal chest view: CR's and DX's defined terms (lateral, lateral decubitus,
oblique, mammography) and what else is met. Decubitus is shot antero-posterior, but nobody trained on it."""
UNSPECIFIC_PARTS = frozenset(
    {
        "", "unknown", "other", "undefined", "default", "general", "body", "wholebody", "whole body", "trunk", "na",
        "n a", "none", "null", "unspecified", "not specified", "any", "misc", "x", "xx", "xxx", "routine", "portable",
    }
)  # fmt: skip


_SERIES_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_STUDY_TEXTS = ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription")

_PA_CODES, _AP_CODES = frozenset({"272479007", "R-10214"}), frozenset({"399348003", "R-10206"})
_OTHER_VIEW_CODES = frozenset(
    {
        "399067008", "R-10228", "399173006", "R-10236", "399198007", "R-10232", "399260004", "399352003", "30730003",
        "R-10220", "260427002", "399182000", "399135007", "399006002", "399184004", "399356000", "399038007",
        "399236003", "399312000", "399059000", "399160007",
    }
)  # fmt: skip
"""Lateral, sagittal and oblique views."""

_CHEST_CODES = frozenset(
    {
        "816094009", "51185008", "T-D3000", "43799004", "39607008", "T-28000", "86598002", "416775004", "416550000",
        "417437006", "416319003", "416152001", "80891009", "72410000",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """What the header says of the body part.

    `is_chest` : None where it says nothing that is understood
    `seen` : for people, the attribute and the word in it that decided; "" where there is none, or none to repeat
    """

    is_chest: bool | None
    seen: str = ""


def frontal_view(dataset: Dataset) -> View:
    """PA or AP as View Position, View Code Sequence or the words of the series tell it."""
    terms = words(dataset, "ViewPosition").split()
    codes = {code for code, _ in _codes(dataset, "ViewCodeSequence")}
    of_series = _words(dataset, _SERIES_TEXTS).split()
    for says_pa, says_ap in (
        ("pa" in terms, "ap" in terms),
        (bool(codes & _PA_CODES), bool(codes & _AP_CODES)),
        ("pa" in of_series, "ap" in of_series),
    ):
        if says_pa != says_ap:
            return View.PA if says_pa else View.AP
    return View.UNKNOWN


def other_view(dataset: Dataset) -> str | None:
    """Tell what in the header says that this is a lateral or oblique view; None where nothing does.

    A coded word for it is believed even where another tag says PA: a lateral view read as frontal gets a wrong
    verdict, a refused one is read by a person. Words count only where no tag tells the view, and the study's
    words only where they name nothing but a lateral view: one study has both.

    Returns where it stands, and of coded attributes the term. Free text is not repeated: nobody knows whom else it
    names.
    """
    if term := VIEW_POSITIONS.search(raw(dataset, "ViewPosition").upper().replace("_", " ")):
        return f"View Position {term[0]}"
    if word := _sideways(words(dataset, "ViewPosition")):
        return f"View Position {word}"
    for code, meaning in _codes(dataset, "ViewCodeSequence"):
        if code in _OTHER_VIEW_CODES or (code not in _PA_CODES | _AP_CODES and _sideways(meaning)):
            return f"View Code Sequence {code}" if code in _OTHER_VIEW_CODES else "View Code Sequence"
    if (direction := _sagittal(dataset)) is not None:
        return f"Patient Orientation {direction}"
    if frontal_view(dataset) is not View.UNKNOWN:
        return None
    for place, keywords in (("the words of the series", _SERIES_TEXTS), ("the words of the study", _STUDY_TEXTS)):
        said = _words(dataset, keywords)
        if FRONTAL.search(said):
            return None
        if _sideways(said):
            return place
    return None


def body_part(dataset: Dataset) -> Part:
    """Tell whether the header says that this is a chest.

    Body Part Examined decides where it is understood, then Anatomic Region Sequence, then words of series and study.
    """
    stated, part = raw(dataset, "BodyPartExamined"), words(dataset, "BodyPartExamined")
    if part not in UNSPECIFIC_PARTS and any(char.isalpha() for char in part):
        if _names_chest(part):
            return Part(True)
        if (word := _other_part(part)) or is_plain(stated):  # other letters than ASCII may say anything
            named = word or (part if part in DEFINED_PARTS else None)
            return Part(False, f"Body Part Examined {named.upper()}" if named else "Body Part Examined")
    for code, meaning in _codes(dataset, "AnatomicRegionSequence"):
        if code in _CHEST_CODES:
            return Part(True)
        if (told := _told("Anatomic Region Sequence", meaning)) is not None:
            return told
    for place, keywords in (("the words of the series", _SERIES_TEXTS), ("the words of the study", _STUDY_TEXTS)):
        if (told := _told(place, _words(dataset, keywords))) is not None:
            return told
    return Part(None)


def has_unknown_part(dataset: Dataset) -> bool:
    """Tell whether Body Part Examined holds something in letters or words that are not understood."""
    part = words(dataset, "BodyPartExamined")
    return body_part(dataset).is_chest is None and part not in UNSPECIFIC_PARTS


def _told(place: str, said: str) -> Part | None:
    if _names_chest(said):
        return Part(True)
    return Part(False, place) if _other_part(said) else None


def _names_chest(said: str) -> bool:
    without_spine = not SPINE.search(said) or "chest" in said
    return bool(CHEST.search(NOT_THE_CHEST.sub(" ", said))) and without_spine


def _other_part(said: str) -> str | None:
    found = OTHER_PARTS.search(said) or SPINE.search(said) or NOT_THE_CHEST.search(said)
    return found[0] if found else None


def _sideways(said: str) -> str | None:
    """Find a word for a lateral or oblique view where there is none for a frontal one beside it."""
    found = LATERAL.search(said) or OBLIQUE.search(said)
    return found[0] if found and not FRONTAL.search(said) else None


def _sagittal(dataset: Dataset) -> str | None:
    """Tell which rows or columns run from front to back: then the beam ran from side to side (PS3.3 C.7.6.1.1.1)."""
    orientation = raw(dataset, "PatientOrientation").upper().split("\\")
    return next((part.strip()[:1] for part in orientation[:2] if part.strip()[:1] in ("A", "P")), None)


def _codes(dataset: Dataset, keyword: str) -> Iterable[tuple[str, str]]:
    for item in dataset.get(keyword) or ():
        yield raw(item, "CodeValue").strip(), words(item, "CodeMeaning", dataset)


def _words(dataset: Dataset, keywords: Iterable[str]) -> str:
    return " ".join(words(dataset, keyword) for keyword in keywords)
