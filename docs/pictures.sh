#!/bin/sh
# Makes the pictures of README and docs again, with the shipped model and samples. Takes about half an hour on two cores.
# Run: make pictures
set -eu
VTC="${VTC:-vtc}"
PYTHON="${PYTHON:-python}"
PICTURE=samples/gradient.png
QUESTION="what is the blue shape?"

$VTC run --recipe mustdrop "$PICTURE" "$QUESTION" --budget 64 --overlay docs/overlay.png -q > /dev/null
$VTC analyze "$PICTURE" "$QUESTION" --recipe mustdrop --recipe tokencarve --budget 64 --plot docs/layers.png -q > /dev/null
$VTC analyze "$PICTURE" "$QUESTION" --curve heads --plot docs/heads.png -q > /dev/null
$VTC analyze --curve tokens --data samples/eval/items.jsonl --points 576,192,128,64,32,16,8 \
  --select tokencarve --select attention --select uniform --select random \
  --plot docs/tokens.png > docs/tokens.txt

if command -v chromedriver > /dev/null; then  # Debian: chromium, chromium-driver
  page=$(mktemp --suffix=.html)
  $VTC run --recipe mustdrop "$PICTURE" "$QUESTION" --budget 64 --baseline --html "$page" -q > /dev/null
  $PYTHON docs/page_picture.py "$page" docs/page.png
  mkdir -p build
  $VTC compare --recipe dart,divprune,fastervlm,fastv,mustdrop,tokencarve,visionzip,snapkv --budget 64 \
    --data samples/eval/items.jsonl -o build/compare.jsonl --html "$page" -q > /dev/null
  $PYTHON docs/page_picture.py "$page" docs/compare.png
  rm "$page"
fi
