#!/bin/bash
# `inferfs bench` takes each family by its name and prints a row for each slice and mini-batch, figures that fit together; what it
# doesn't know it says.
. "$(dirname "$0")/lib.sh"

# rows ARCH OPTIONS…: two slices, mini-batches of 1 and 2
rows()
{
	"$INFERFS" bench "$@" --slices 0.5,1 --batch 1,2 --repeat 1 --threads 1 >"$DIR/csv" || fail "inferfs bench $*"
	same slice,precision,batch,ms_median,images_per_s,gflops,peak_rss "$(head -n 1 "$DIR/csv")" "columns of $1"
	same "0.5,f32,1 1,f32,1 0.5,f32,2 1,f32,2" "$(tail -n +2 "$DIR/csv" | cut -d, -f1-3 | paste -sd' ')" "rows of $1"
	awk -F, 'NR > 1 && !($4 > 0 && $6 > 0 && $7 > 0) { exit 1 }' "$DIR/csv" || fail "figures of $1: $(cat "$DIR/csv")"
}

rows resnet8 --norm batch
rows resnet18 --input 3x32x32 --classes 10 --norm batch
rows resnet50 --input 3×32×32
rows mobilenet --input 3x32x32 --norm batch
rows inception-resnet-v2 --input 1x28x28 --classes 2 --norm batch
rows mlp
rows --net '{"arch":"vgg","depth":11,"width":8,"norm":"none"}' --input 3x32x32 --classes 3
rows resnet8 --norm batch --train
"$INFERFS" bench resnet8 --norm batch --sandwich --slices 0.5,0.25 --batch 2 --repeat 1 --threads 1 >"$DIR/csv" || fail "--sandwich"
same "0.5 0.25 0.25+0.5+1" "$(tail -n +2 "$DIR/csv" | cut -d, -f1 | paste -sd' ')" "rows of --sandwich: full width is part of it"
expect "not \"lenet\"" "$INFERFS" bench lenet5
expect "can't be used" "$INFERFS" bench mlp --input 3x32
