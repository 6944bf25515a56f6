#!/usr/bin/env bash
# The whole pipeline on a small generated data set, from nothing: bash scripts/demo.sh
# Minutes on two CPU cores; on a GPU if there is one. Everything goes to experiments/demo/.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install requirements.txt
python="$venv/bin/python"
started=$SECONDS
root=data/demo
runs=experiments/demo
rm -rf "$runs"
step() { printf '\n== %s\n' "$*"; "$python" "$@"; }

step -m datasets.demo --root "$root" --images 240 --validation 40 --size 112 --seed 0
data="--dataset custom --root $root --experiments $runs"
crops="--batch 8 --crop 112 --long_side 96 144"
# From scratch and for minutes, so: a small backbone, momentum, and a learning rate to go with it.
network="--backbone resnet18 --backbone_weights none --lr 0.02 --momentum 0.9 --clip 10"
# Features learnt in minutes are much alike, so affinity is cut far higher than in the paper (0.6).
affinity="--gamma 0.98"
training="--scn $runs/scn/last.pt --epochs 15 --score_images 24 $crops $network $affinity"
cams="--split train --scales 1 1.5 $affinity --thresholds 0.1 0.2 0.3 0.4 0.5 0.6"

step train_scn.py $data $crops --epochs 6 --lr 1e-3
step train_cls_image.py $data $training
step evaluator_cls_image.py $data $cams --checkpoint "$runs/cls_image/best.pt"
step train_cls_sal.py $data $training
step evaluator_cls_sal.py $data $cams --checkpoint "$runs/cls_sal/best.pt"
# The last station learns from the image method's labels alone, beginning with its backbone, and is
# scored on scenes of which no stage has seen anything. Stride 16 and small crops are for a CPU.
step train_seg.py $data --split train --labels_from eval_image --backbone resnet18 \
  --backbone_weights "$runs/cls_image/last.pt" --stride 16 --batch 8 --accumulate 1 --crop 112 \
  --lr 3e-3 --clip 10 --steps 240 --score_every 80 --score_images 0
step evaluator_seg.py $data --split val --checkpoint "$runs/seg/last.pt"
# Any folder of photographs, without labels: here the validation scenes.
mkdir "$runs/photographs"
while read -r id; do cp "$root/JPEGImages/$id.jpg" "$runs/photographs/"; done \
  <"$root/ImageSets/Segmentation/val.txt"
step evaluator_seg.py --images "$runs/photographs" --experiments "$runs" --tag segmented \
  --checkpoint "$runs/seg/last.pt"
step -m utils.pictures.summary "$runs/eval_image" "$runs/eval_sal" "$runs/eval_seg" \
  --sheet "$runs/contact_sheet.png"
echo "the demo took $((SECONDS - started)) s after installing"
