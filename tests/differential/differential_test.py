#!/usr/bin/env python3
"""Random models answered by ONNX Runtime, unoptimised, and by Octet.

usage: differential_test.py ANSWERS [--first SEED] [--count N] [--seconds S] [--keep FOLDER]

ANSWERS is the program of answers.cc. Every seed is a model: float ones, some with control flow, sequences and functions of their own, some
asked for in FP16 and BF16, too; ones with QuantizeLinear and DequantizeLinear, or weights of 4 bits; ai.onnx.ml's; ones of whole numbers. Float answers may differ by what the order of sums makes, those of 16 bits by their last bit; where
a value is rounded to 8 bits, by what a disturbance of a few ulps before that makes. Some whose batch is open are answered for several
batches, one after the other, by one loaded model.
A model that is answered wrongly is made as small as it stays wrong, printed, and written to FOLDER/<seed> for `octet check`.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time

import oracle
import halves
import models
import octet_answers
import shrink

HALVES = 3  # One float model of so many is asked for with values of 16 bits, too.
TURNS = 4  # One model of so many is asked for other batches, too, where it leaves the batch open.
LONG = 8  # Of which one of so many is long: a plan takes it in slices, where what is in between is large.
MOST_REFUSED = 0.02  # Of the models, by ONNX Runtime: more, and the generator has a mistake.


class Run:
    def __init__(self, octet, keep):
        self.octet, self.keep = octet, keep
        self.compared = self.refused = 0
        self.wrong = []

    def complaint(self, model, inputs):
        """What is wrong with Octet's answer, or None."""
        try:
            got = self.octet.answers(model, inputs)
        except octet_answers.Failed as failed:
            oracle.answers(model, inputs)  # Refused by both: no finding.
            return str(failed)
        return oracle.complaint(model, inputs, got)

    def seed(self, seed):
        made = models.model(seed)
        if made is None:
            return
        try:
            wrong = self.complaint(*made)
        except oracle.Refused as refused:
            self.refused += 1
            print(f"seed {seed}: refused by ONNX Runtime: {refused}")
            return
        self.compared += 1
        if wrong is not None:
            self.wrong.append(seed)
            self.report(seed, wrong, *made)
            return
        if seed % HALVES == 0 and models.has_halves(seed):
            self.halves(seed, *made)
        if seed % TURNS == 0 and models.is_open(made[0]):
            self.turns(seed, *made)

    def halves(self, seed, model, inputs):
        wrong = halves.complaint(self.octet, model, inputs)
        if wrong is not None:
            self.wrong.append(seed)
            print(f"seed {seed}: {wrong}\n{shrink.text(model)}", flush=True)

    def turns(self, seed, model, inputs):
        """The model with its own batch and others, one after the other, and again with its own: from one set of plans."""
        sets = [inputs, *(models.with_batch(seed, inputs, batch) for batch in self.batches(seed)), inputs]
        try:
            answers = self.octet.answers_in_turn(model, sets)
            complaints = [oracle.complaint(model, *pair) for pair in zip(sets, answers, strict=True)]
            wrong = next((f"set {i}: {what}" for i, what in enumerate(complaints) if what), None)
        except octet_answers.Failed as failed:
            wrong = str(failed)
        if wrong is not None:
            self.wrong.append(seed)
            batches = [next(iter(one.values())).shape[0] for one in sets]
            print(f"seed {seed}: batches {batches} in turn: {wrong}\n{shrink.text(model)}", flush=True)

    @staticmethod
    def batches(seed):
        """Two, the second long now and then."""
        source = random.Random(seed)
        return [source.choice([1, 2, 4, 7]), source.choice([32, 64]) if seed // TURNS % LONG == 0 else source.choice([3, 8, 16])]

    def report(self, seed, wrong, model, inputs):
        print(f"seed {seed}: {wrong}", flush=True)
        small, inputs, wrong = shrink.Shrinker(model, inputs, self.complaint).run()
        folder = self.keep / str(seed)
        octet_answers.write_case(folder, small, inputs, oracle.answers(small, inputs).values())
        print(f"  smallest: {wrong}\n{shrink.text(small)}\n  octet check {folder}/model.onnx --golden {folder} --bisect-passes", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("answers")
    parser.add_argument("--first", type=int, default=1, help="seed of the first model")
    parser.add_argument("--count", type=int, default=600, help="how many models")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no more models are begun")
    parser.add_argument("--keep", type=pathlib.Path, help="where models that are answered wrongly are written")
    options = parser.parse_args()
    keep = options.keep or pathlib.Path(tempfile.mkdtemp(prefix="octet-differential-"))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        octet = octet_answers.Octet(options.answers, pathlib.Path(name))
        run = Run(octet, keep)
        for seed in range(options.first, options.first + options.count):
            if time.monotonic() - begin > options.seconds:
                break
            run.seed(seed)
        octet.close()
    print(f"{run.compared} models compared in {time.monotonic() - begin:.0f} s, {len(run.wrong)} wrong, {run.refused} refused by ONNX Runtime")
    if run.wrong:
        print("wrong seeds:", *run.wrong)
    return 1 if run.wrong or run.refused > MOST_REFUSED * (run.compared + run.refused) or not run.compared else 0


if __name__ == "__main__":
    sys.exit(main())
