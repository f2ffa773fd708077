"""What is said of the figures of docs/patient_real_results.py, by a person."""

HEAD = """## Patient adaptation, on real runs

Written by `docs/patient_real_results.py` from `docs/patient-real.json`: no table was typed. The runs are the 7 of `../shared/data/angiodata_cine` beside which the source's
masks lie, one of each patient. They hold 1 to 7 contrast-free frames, too few for `contrastream calib patient`, so the filled frames taught with **their vessels removed** (inpainting with the
frame's own grain laid in, along whatever the source's masks or our segmenter takes for a vessel), and the held-out frames, the later heartbeats of the same run, are judged with
theirs removed alike. A figure on such a frame says nothing by itself: M may read the mending, or contrast medium that was left. **The leak probe below says what it is worth.**

- *adapted, vessels removed*: taught on the taught frames so. *adapted, decoys too*: each frame mended in 6 ways, along its vessels and along others', moved or mirrored, so that
  mending alone tells nothing. *adapted, contrast-free*: on the few frames that never had contrast medium, with the vessels of the taught frames of the nearest phase; these know no mending.
- *all taught frames, as wide*: the average of all taught masks, cut off at the area that "adapted, vessels removed" draws; *by flow*: each moved by optical flow first. M draws
  lines wider than a mask's, and wide lines flatter clDice: these two have the same advantage, the other roadmaps do not. *best filled frame* is chosen knowing the answer.

What limits these figures: there is no truth. The source's masks are another network's output, broken up in places and with the catheter in them (*catheter left out*: without what they
have in the contrast-free frames, widened by 4 px; our segmenter knows phantoms only and finds many vessels that are none). Taught, held-out and contrast-free frames are of one run,
one injection. Only where two heartbeats are filled do the held-out frames belong to other heartbeats; else they are the later half. The frame rate is not stated, and where the
clearness is below 0.3 the phase means little. Distances are in pixels of 256 rows (2 of the source's): the pixel spacing is not stated, so none is in mm. No two runs are known to be of one
projection, so none was taught on one run and tested on another. One seed; nothing within 8 px of the field's border is judged; which step is kept is chosen on the taught
frames, since none is spared.
"""

SAID = """**What was asked for, and what it is worth.** Asked was clDice ahead of the static roadmap, of a motion-compensated one and of the phase oracle on 5 patients or more of 7, on held-out filled frames with
their vessels removed. So measured it is ahead: 0.51 and 0.53 (with decoys) against 0.20, 0.24 and 0.33, in 7, 7 and 6 patients (with decoys 7, 7 and 7), also of both roadmaps that
are as wide (0.30 and 0.37; 7 of 7), with the catheter left out and by our segmenter as the judge. In three of the seven the held-out frames are of the same heartbeat. **It does not carry over to frames without
contrast medium, which are the only ones that matter:** on the 20 that these runs hold the same M has 0.21 (with decoys 0.25), less than the taught vessels' average laid still (0.37) and than
the last taught frame (0.34). It is ahead of that average in none of the seven patients, with decoys in two. **That adaptation works on real runs is therefore not shown, and the figures on mended frames are no evidence for it.**
The model taught on the few contrast-free frames has 0.42 there, but was taught on these very frames; on the held-out mended ones it has 0.22.

**What M goes by.** Not simply the mending, other than on the phantom: a mirrored decoy draws nothing to itself (0.07 with and without), one moved by 14 px down and to the right hardly (0.14, without 0.13; taught with
decoys 0.18 and 0.15), and mending a contrast-free frame along the vessels raises 0.18 to 0.21. Where the decoy is plausible, the vessels of another moment, the moment's own fall from 0.51 to 0.40
and the decoy's rise from 0.24 to 0.28; part of that is damage to the background. E_BG passes little on: a head finds mended lines with 0.60 where it has 0.52 without any. Our segmenter finds no vessels in the mended frames
(0.01), though the smallest branches and the blush of the muscle, which no mask has, are still in them. The rest of the distance between 0.51 and 0.21 is not told apart by these runs: contrast medium that is left, or
that filled frames follow each other within seconds at one breath while the contrast-free ones, at the start or the end, lie elsewhere. The contrast-free frame of the nearest phase is not
of the same moment either, so 0.18 and 0.21 have no perfect answer; moved to the pose by optical flow, which errs too, it has 0.22. What would tell: runs with ten contrast-free heartbeats before the
injection, as `calib patient` asks for.

**Seen in the pictures** (sheets of every run, not kept, since the terms of the pictures are not stated). With vessels removed no line can be seen any more, but uneven patches, the aorta's dark root and the finest branches. On held-out mended frames M
draws the main stems upon the vessels in patients 2, 3, 4, 6 and 7, two to four times as wide, with neighbouring branches run together and the thin ones missing; in 5 a coarse web, in 1 pieces
along the right coronary. On contrast-free frames it is the same tree some pixels beside the nearest filled frame's in 2, 3 and 6; in 4, 5 and 7, where diaphragm and heart lie elsewhere than in the filled
frames, it is pieces in wrong places, up to the field's border. The model taught on contrast-free frames draws blurred sheets there. Against M as it is without adaptation all of this is much: that one draws along the heart's edge
(0.08).
"""
