import { assert, assertEquals } from "@std/assert";
import { phantom } from "../../lib/data/phantom.ts";

Deno.test("phantom: same keys same bytes, other keys other bytes", () => {
  const a = phantom(3, 1, 32, 2);
  assertEquals(phantom(3, 1, 32, 2), a);
  assert(phantom(3, 2, 32, 2).label.some((v, i) => v !== a.label[i]));
  assert(phantom(4, 1, 32, 2).label.some((v, i) => v !== a.label[i]));
});

Deno.test("phantom: both labels lie in the brain, the brain fills a third of the cube, the rim is empty", () => {
  const size = 48;
  for (let index = 0; index < 6; index++) {
    const { images: [image], label, enlarged } = phantom(0, index, size, 1);
    const count = (f: (i: number) => boolean) => label.reduce((n, _, i) => n + Number(f(i)), 0);
    const brain = count((i) => image[i] > 0) / size ** 3;
    assert(brain > .15 && brain < .4, `brain share ${brain}`);
    assert(count((i) => label[i] > 0 && image[i] === 0) === 0);
    const [one, two] = [count((i) => label[i] === 1) / size ** 3, count((i) => label[i] === 2) / size ** 3];
    assert(one > .002 && two > .004, `${enlarged} ${one} ${two}`);
    assert(image.subarray(0, size * size).every((v) => v === 0));
  }
});
