"""What the names in a report mean, in the words that readers search for. Knows no numbers."""

FAMILIES = {
    "alignment": ("Mask and image agree", "Does each image show what its mask says, where it says it?"),
    "fidelity": ("Fidelity", "Are synthetic volumes distributed as real ones are (FID, KID, SSIM)?"),
    "diversity": ("Diversity", "Do synthetic volumes differ among themselves as real ones do?"),
    "condition": ("Obedience", "Is what was asked for (class, text, size) what came?"),
    "calibration": ("Calibration", "Is a segmenter as sure of itself on synthetic volumes as it is on real ones?"),
    "artefact": ("Artefacts", "Do patches of the samples look like patches of real volumes?"),
    "utility": ("Utility", "Does training with the synthetic set help a model on real patients?"),
    "privacy": ("Privacy and memorisation", "Are samples copies of training patients, or do they give them away?"),
}
"""Family of figures: heading and question, in the order of the page."""

MEANINGS = {
    "alignment.adjacency": "which labels touch which, against hold-out; the floor is chance at these sizes",
    "alignment.agreement": "how well a segmenter finds the given masks in the images, over its Dice on other patients",
    "alignment.boundary": "edges of the image at mask boundaries, over those beside them; 1: none; floor: hold-out",
    "alignment.boundary_shifted": "the same with each mask shifted by 1 to 3 voxels: must be clearly lower",
    "alignment.dice.": "Dice of that segmenter on the synthetic images; the floor is its Dice on hold-out",
    "alignment.gap.": "agreement of the best level of an attribute less that of the worst; the floor is chance",
    "alignment.hd95.": "95 % Hausdorff distance of that segmenter's labels; a missed label counts as the diagonal",
    "alignment.intensity.": "intensities inside the label against hold-out; the floor is chance at these sizes",
    "alignment.nsd.": "surface Dice of that segmenter; the floor is what it reaches on hold-out",
    "alignment.permuted": "the same with masks swapped between samples: must be clearly lower",
    "alignment.topology": "pieces and cavities of labels against hold-out; the floor is chance at these sizes",
    "alignment.volume.": "volumes of the label against hold-out; the floor is chance at these sizes",
    "artefact.auroc": "how well the gate tells corrupted held-out volumes from clean ones: a control of the gate",
    "artefact.share_flagged": "share of samples whose patches are less like real ones than 95 % of held-out volumes",
    "calibration.brier": "Brier score of the segmenter near foreground; the floor is its score on hold-out",
    "calibration.ece_roi": "calibration error of the segmenter near foreground; the floor is its error on hold-out",
    "calibration.volume_crps": "error of the volume that the segmenter states; the floor is its error on hold-out",
    "condition.": "what was asked for against what is measured on the mask",
    "condition.class": "share of samples whose asked class a classifier recognises; floor: its share on hold-out",
    "condition.size": "share of samples of the size asked for",
    "condition.spacing": "how far the spacing is from the one asked for",
    "condition.text.": "share of samples that show what the text names",
    "diversity.ms_ssim": "MS-SSIM between random pairs: near 1, samples look alike; the floor is the population",
    "diversity.vendi": "Vendi score, the effective number of different samples, over real volumes'; noise adds too",
    "fidelity.coverage": "share of real neighbourhoods that samples fill (Clipped Coverage); floor: real patients",
    "fidelity.density": "how densely real volumes surround samples (Clipped Density); floor: real patients",
    "fidelity.frechet": "Frechet distance of weight-free features (not Inception FID); floor: real patients",
    "fidelity.kernel": "kernel distance (KID, MMD) of those features, with a test of equal distributions",
    "fidelity.precision": "share of samples that lie among real volumes; floor: real patients",
    "fidelity.recall": "share of real volumes that lie among samples; floor: real patients",
    "fidelity.sliced_wasserstein": "sliced Wasserstein distance of those features (MIND: 3 d its square); floor: real",
    "fidelity.ssim": "SSIM to a random volume of the population; floor: between real patients",
    "privacy.authenticity_z": "AuthPct against what held-out patients reach; low where samples are copies, or smooth",
    "privacy.blind_gate": "how well training is told from hold-out without a generator: must be near 0.5",
    "privacy.closer_than_holdout": "share of samples nearer to training than any hold-out volume is",
    "privacy.copy_rate_bound": "at most this share of samples are copies, disguised no better than those planted",
    "privacy.copy_test": "share of samples flagged as copies of training volumes; no formal guarantee",
    "privacy.copy_test.": "the same in this embedding alone; the verdict rests on all together",
    "privacy.copy_test_after_drop": "share flagged by another embedding once the flagged samples are dropped",
    "privacy.exposed_patients": "share of training patients with a sample nearer than chance brings one to others",
    "privacy.left_out_control": "training patients left out and passed as samples: as near to the rest as hold-out is?",
    "privacy.mia": "membership inference from the samples alone (density ratio); 0.5 is guessing",
    "privacy.minimum_detectable": "the smallest share of planted copies that is seen with 80 % power",
    "privacy.nearest": "median feature distance to the nearest training volume; the floor is that of hold-out volumes",
    "privacy.negative_control": "hold-out halves against each other at 5 %: tries the p-values, not the split",
    "privacy.planted_seen": "share of planted copies nearer to training than 95 % of hold-out patients are",
    "privacy.set_level_p": "chance to lean so much to training patients, were they hold-out patients",
    "privacy.weights": "membership inference from the model's denoising losses; 0.5 is guessing",
    "utility.accuracy.": "share of real test volumes whose class a network trained on this arm recognises",
    "utility.accuracy_gain": "classes recognised with the set added, less without; the floor: real repeated",
    "utility.brier_class_gain": "squared error of stated probabilities without the set, less with it; above 0: better",
    "utility.brier_gain": "squared error of stated probabilities without the set, less with it; above 0: better",
    "utility.crps": "error of the volume of each label that a network of this arm states with its doubt (CRPS)",
    "utility.crps_gain": "error of stated volumes without the set, less with it; above 0: better",
    "utility.brier": "squared error of stated probabilities on real test patients, in the region of each label",
    "utility.detection": "share of real lesions of a size of which a tenth of the voxels is labelled",
    "utility.detection_gain": "share of lesions of a size found with the set added, less without",
    "utility.dice.": "Dice on real test patients of a network trained on this arm",
    "utility.dice_gain": "Dice on real test patients with the set added, less without; the floor: real repeated",
    "utility.ece": "calibration error (ECE) on real test patients, in the region of each label",
    "utility.ece_gain": "calibration error (ECE) without the set, less with it; above 0: better",
    "utility.false_lesions": "labelled lesions a case that touch no real one",
    "utility.hd95": "95 % Hausdorff distance on real test patients; a structure missed counts as the image's diagonal",
    "utility.hd95_gain": "95 % Hausdorff distance without the set, less with it; above 0: better",
    "utility.nsd_gain": "surface Dice with the set added, less without",
    "utility.nsd": "surface Dice on real test patients; a structure missed counts as 0",
    "utility.p_holm": "p of a paired sign-flip test over patients, adjusted for all comparisons (Holm)",
    "utility.synthetic_only": "score of a network trained on the synthetic set alone, over that of the real one",
}
"""Figure, or how its name begins: what it says."""


def meaning(name: str) -> str:
    """Return what a figure says; empty where nothing is written about it.

    >>> meaning("alignment.dice.lesion")
    'Dice of that segmenter on the synthetic images; the floor is its Dice on hold-out'
    """
    fits = [start for start in MEANINGS if name.startswith(start)]
    return MEANINGS[max(fits, key=len)] if fits else ""
