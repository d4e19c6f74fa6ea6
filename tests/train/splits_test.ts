import { assert, assertEquals, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { checkSplits, draw, kfold, splitOf, subjectOf } from "../../lib/train/splits.ts";

const names = (n: number) => Array.from({ length: n }, (_, i) => `case_${String(i).padStart(2, "0")}`);
const indices = (list: string[]) => list.map((name) => Number(name.slice(5)));

Deno.test("splits: the folds of scikit-learn's KFold with seed 12345, so of nnU-Net", () => {
  assertEquals(kfold(names(10)).map((s) => indices(s.val)), [[0, 7], [3, 9], [4, 6], [1, 8], [2, 5]]);
  assertEquals(kfold(names(23)).map((s) => indices(s.val)), [
    [3, 8, 10, 17, 19],
    [0, 7, 12, 15, 16],
    [6, 11, 14, 18, 20],
    [9, 13, 21, 22],
    [1, 2, 4, 5],
  ]);
  for (const { train, val } of kfold(names(23))) assertEquals([...train, ...val].sort(), names(23));
});

Deno.test("splits: all sessions of a person are on one side; persons with one session are split as nnU-Net splits cases", () => {
  assertEquals(
    ["sub-07_ses-2_T1w", "sub-07", "ds000001-sub-3b-ses-1", "subject_1", "case_1"].map(subjectOf),
    ["sub-07", "sub-07", "ds000001-sub-3b", "subject_1", "case_1"],
  );
  const ids = (sessions: number) =>
    names(10).flatMap((n) => Array.from({ length: sessions }, (_, s) => `sub-${n.slice(5)}_ses-${s}`));
  const folds = (list: string[]) =>
    kfold(list).map((s) => [...new Set(s.val.map((name) => Number(name.slice(4, 6))))]);
  assertEquals(folds(ids(1)), kfold(names(10)).map((s) => indices(s.val)));
  assertEquals(folds(ids(3)), folds(ids(1)));
  for (const { train, val } of kfold(ids(3))) {
    assertEquals([train.length, val.length], [24, 6]);
    const held = new Set(val.map(subjectOf));
    assert(train.every((name) => !held.has(subjectOf(name))));
  }
});

Deno.test("splits: draws are nested, differ, and are refused beyond the training set", () => {
  const [three, five] = [draw(names(20), 3, 0), draw(names(20), 5, 0)];
  assert(three.every((name) => five.includes(name)));
  assertEquals(draw(names(20).reverse(), 3, 0), three);
  assert(draw(names(20), 3, 1).join() !== three.join());
  assertThrows(() => draw(names(4), 5, 0), UserError, "--labels is 5");
});

Deno.test("splits: a list that names no case or a case twice is refused", () => {
  const [a, b] = names(2);
  const file = "splits_final.json";
  assertEquals(checkSplits([{ train: [a], val: [b] }], names(2), file).length, 1);
  assertThrows(() => checkSplits([{ train: [a], val: ["zz"] }], names(2), file), UserError, '"zz"');
  assertThrows(
    () => checkSplits([{ train: [a], val: [a] }], names(2), file),
    UserError,
    "in train and in val",
  );
  assertThrows(() => splitOf("3", kfold(names(10), 2), names(10), file), UserError, "no fold 3");
  assertEquals(splitOf("all", kfold(names(10)), names(10), file), { train: names(10), val: [] });
});
