"""Which tables the suites and claims are about: PMLB's without those that hold another's rows, and 20 that need no data folder.

Facts only: of each table of PMLB its rows, so that large ones (1,000 rows or more, as the paper has it) stand apart.
"""

from __future__ import annotations

from harness_papers.selu.tabular import SIZES

LARGE = 1000  # rows, test part and all

# Not in a sample of tables, in which each should count once: the same rows, or the same inputs with another label.
TWINS = {
    "breast-cancer-wisconsin": "wdbc", "breast": "breast-w", "liver-disorder": "bupa", "car-evaluation": "car",
    "cars1": "cars", "chess": "kr-vs-kp", "cleve": "heart-c", "cleveland": "heart-c", "heart-statlog": "heart-c",
    "colic": "horse-colic", "diabetes": "pima", "flare": "solar-flare_2", "prnn_fglass": "glass", "glass2": "glass",
    "heart-h": "hungarian", "house-votes-84": "vote", "molecular-biology_promoters": "promoters",
    "agaricus-lepiota": "mushroom", "buggyCrx": "credit-a", "crx": "credit-a", "australian": "credit-a", "dna": "splice",
    "allbp": "allhypo", "allrep": "allhypo", "allhyper": "allhypo", "dis": "allhypo",
}  # fmt: skip

EMBEDDED = {"digits": 1797, "breast_cancer": 569, "wine": 178, "iris": 150}

# The others, by rows.
PMLB = {
    "analcatdata_japansolvent": 52, "analcatdata_cyyoung9302": 92, "analcatdata_cyyoung8092": 97, "appendicitis": 106,
    "promoters": 106, "cloud": 108, "lymphography": 148, "hepatitis": 155, "flags": 178, "wine-recognition": 178,
    "backache": 180, "prnn_crabs": 200, "auto": 202, "glass": 205, "sonar": 208, "biomed": 209, "new-thyroid": 215,
    "prnn_synth": 250, "analcatdata_lawsuit": 264, "spect": 267, "breast-cancer": 286, "hungarian": 294, "heart-c": 303,
    "haberman": 306, "solar-flare_1": 315, "ecoli": 327, "schizo": 340, "bupa": 345, "movement_libras": 360,
    "dermatology": 366, "horse-colic": 368, "cars": 392, "calendarDOW": 399, "analcatdata_germangss": 400, "vote": 435,
    "saheart": 462, "clean1": 476, "collins": 485, "irish": 500, "threeOf9": 512, "monk3": 554, "monk1": 556, "wdbc": 569,
    "monk2": 601, "balance-scale": 625, "profb": 672, "soybean": 675, "credit-a": 690, "breast-w": 699, "pima": 768,
    "analcatdata_dmft": 797, "analcatdata_authorship": 841, "tic-tac-toe": 958, "tokyo1": 959, "xd6": 973, "credit-g": 1000,
    "solar-flare_2": 1066, "parity5+5": 1124, "Hill_Valley_with_noise": 1212, "Hill_Valley_without_noise": 1212,
    "mofn-3-7-10": 1324, "contraceptive": 1473, "wine-quality-red": 1599,
    "GAMETES_Epistasis_2-Way_1000atts_0.4H_EDM-1_EDM-1_1": 1600, "GAMETES_Epistasis_2-Way_20atts_0.1H_EDM-1_1": 1600,
    "GAMETES_Epistasis_2-Way_20atts_0.4H_EDM-1_1": 1600, "GAMETES_Epistasis_3-Way_20atts_0.2H_EDM-1_1": 1600,
    "GAMETES_Heterogeneity_20atts_1600_Het_0.4_0.2_50_EDM-2_001": 1600,
    "GAMETES_Heterogeneity_20atts_1600_Het_0.4_0.2_75_EDM-2_001": 1600, "car": 1728, "mfeat-factors": 2000,
    "mfeat-fourier": 2000, "mfeat-karhunen": 2000, "mfeat-morphological": 2000, "mfeat-pixel": 2000, "mfeat-zernike": 2000,
    "titanic": 2201, "hypothyroid": 3163, "splice": 3188, "kr-vs-kp": 3196, "led24": 3200, "led7": 3200, "allhypo": 3770,
    "spambase": 4601, "waveform-21": 5000, "optdigits": 5620, "clean2": 6598, "ann-thyroid": 7200, "twonorm": 7400,
    "mushroom": 8124, "coil2000": 9822, "nursery": 12958, "magic": 19020, "adult": 48842, "shuttle": 58000,
    "connect-4": 67557, "fars": 100968, "sleep": 105908,
}  # fmt: skip

RULES = tuple(SIZES)  # of the task rule-table
SMALL_PMLB = tuple(name for name, rows in PMLB.items() if rows < LARGE)
LARGE_PMLB = tuple(name for name, rows in PMLB.items() if rows >= LARGE)
MOST_ROWS = 10_000  # of a table in the suite of 20
FROM = 8_000  # train rows that are kept of a larger table, in the suite of all
HUGE_PMLB = tuple(name for name, rows in PMLB.items() if rows > 14_000)


def evenly(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` of the names at even steps: which ones is nobody's choice."""
    return tuple(names[round((i + 0.5) * len(names) / count - 0.5)] for i in range(count))


PMLB_20 = (
    *evenly(SMALL_PMLB, 10),
    *evenly(tuple(name for name in LARGE_PMLB if PMLB[name] <= MOST_ROWS), 10),
)
