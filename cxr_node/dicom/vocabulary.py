"""Words for the chest, for other body parts and for projections, in the languages that archives speak.

Knows no header. Words stand here as people write them and are folded (`readings.fold`) like the texts in which they are
looked for. Where a script writes words with spaces between them a word is found as a whole, or with its ending where
an asterisk stands for that; else anywhere. An equals sign asks for the whole text or a word that stands by itself.
PS3.16 Annex L (body parts), PS3.3 C.8.1.1 (View Position).
"""

from __future__ import annotations

import re

from cxr_node.dicom.readings import fold

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
