"""The privacy audit: may a synthetic set, or a generator's weights, leave the house? Bounds by measurement, in words.

`evaluation.audit` and `evaluation.pool` are its ways in. It judges volumes and numbers handed to it; it knows no
model, file or layout. A pass bounds what was tried here, and is no formal (DP) guarantee.

In order, patients counted and not volumes:
1. design     no patient on both sides (refused), no hold-out volume that is a training volume, and the blind gate:
              training and hold-out are not told apart without a generator, else nothing below means anything; nor are
              training patients left out nearer to the rest of training than hold-out patients are
2. distances  of samples, hold-out volumes and planted copies to training volumes, in each embedding
3. copy test  one conformal p-value a sample against hold-out volumes, over all embeddings; Benjamini-Hochberg, once
4. set level  whether the set leans to training patients, by permuting patients' labels; over all embeddings
5. membership density ratio on features (black box); denoising losses where a pipeline hands them over (white box),
              against patients with no part in training; a pass of either bounds what is found at 1 % false positives
6. controls   planted copies in six disguises: what share is seen, the smallest copy rate seen with 80 % power, the
              bound, which holds whatever is flagged; halves of the hold-out: 3 to 7 % at 5 %
7. verdicts   images and weights apart: pass, fail, or undecidable with the n that would decide, by simulation
8. drop       where samples are flagged, the rest is audited again, by other embeddings than those that find
              them; undecidable where all do

Chance fails a set that copies nobody: at most q in 3 (far less where samples are as many as hold-out patients), 5 % in
4, 1 % in 5; and calls a fair design invalid in 5 % of cases for each of the two tests in 1.
"""
