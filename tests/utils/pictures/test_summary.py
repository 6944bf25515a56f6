from utils.pictures.summary import table


def scores(*mious):
    rows = [{"threshold": 0.1 * (i + 2), "miou": miou} for i, miou in enumerate(mious)]
    return {"thresholds": rows, "best": max(rows, key=lambda row: row["miou"])}


def test_scores_refined_by_a_crf_have_a_row_and_the_best_labels_are_named():
    plain = scores(0.5, 0.4) | {"split": "train", "best_labels": "pseudo_labels/0.2"}
    refined = scores(0.3, 0.35) | {"split": "val", "best_labels": "pseudo_labels_crf/0.2"}
    unscored = {"split": "all", "best_labels": "pseudo_labels/0.25"}
    text = table({"a": plain, "b": refined | {"crf": scores(0.6, 0.1)}, "c": unscored})
    assert text.splitlines()[1:] == [
        "a          50.0   40.0   50.0 at 0.2 on train",
        "b          30.0   35.0   35.0 at 0.3 on val",
        "b, CRF     60.0   10.0   60.0 at 0.2 on val",
        "c             -      -   - on all",
        "best labels: a/pseudo_labels/0.2/",
        "best labels: b/pseudo_labels_crf/0.2/",
        "best labels: c/pseudo_labels/0.25/",
    ]
