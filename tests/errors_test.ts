import { assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { explain, nearest, oneOf, UsageError, UserError } from "../lib/errors.ts";

Deno.test("errors: the system's are named by path, without .partial, and with a way out", async () => {
  const root = await Deno.makeTempDir();
  const at = (name: string) => join(root, name);
  await Deno.writeTextFile(at("file"), "x");
  const says = async (work: () => Promise<unknown>): Promise<string> => {
    try {
      await work();
    } catch (error) {
      const { message, exitCode } = explain(error);
      assertEquals(exitCode, 1);
      return message.replaceAll(root, "ROOT");
    }
    return "nothing";
  };
  for (
    const [work, words] of [
      [() => Deno.readTextFile(at("none")), "ROOT/none: there is no such file or folder; correct the path"],
      [
        () => Deno.mkdir(at("file"), { recursive: true }),
        "ROOT/file: there is a file of that name; choose another",
      ],
      [() => Deno.readTextFile(root), "ROOT: this is a folder; name a file"],
      [
        () => Deno.mkdir(at("file/x"), { recursive: true }),
        "ROOT/file/x: this, or a part of it, is a file and no folder; correct the path",
      ],
      [
        () => Deno.writeTextFile(at("none/a.png.partial"), ""),
        "ROOT/none/a.png: there is no such folder to write to; make it or correct the path",
      ],
      [
        () => Deno.writeTextFile(at("none/a.html.123.partial"), ""),
        "ROOT/none/a.html: there is no such folder to write to; make it or correct the path",
      ],
      [
        () =>
          Promise.reject(
            new Deno.errors.PermissionDenied("Permission denied (os error 13): open '/a/b.partial'"),
          ),
        "/a/b: the system denies access; change its permissions or choose another path",
      ],
      [
        () => Promise.reject(new Deno.errors.NotCapable('Requires write access to "/a/b", run again')),
        "no permission: this needs write access to /a/b; add --allow-write=/a/b",
      ],
      [
        () =>
          Promise.reject(new Deno.errors.NotCapable('Requires all access to "/proc/x.partial", run again')),
        "/proc/x: this place belongs to the system; choose another path",
      ],
    ] as const
  ) assertEquals(await says(work), words);
  assertMatch(
    await says(() => Deno.readTextFile(at("a".repeat(300)))),
    /the system says: File name too long/,
  );
  await Deno.remove(root, { recursive: true });
});

Deno.test("errors: what is nobody's fault is a defect, with its place in one line", () => {
  const broken = (): number => (undefined as unknown as { x: number }).x;
  try {
    broken();
  } catch (error) {
    const { message, exitCode } = explain(error);
    assertEquals(exitCode, 1);
    assertMatch(
      message,
      /^this is a defect of voxalign, please report it: TypeError: .*\(tests\/errors_test\.ts:\d+:\d+ </,
    );
    assertEquals(message.split("\n").length, 1);
  }
  assertEquals(explain(new UsageError("x")), { message: "x", exitCode: 2 });
  assertEquals(explain(new UserError("x")), { message: "x", exitCode: 1 });
  assertMatch(explain("text").message, /defect.*text/);
  assertMatch(
    explain(new RangeError("Array buffer allocation failed")).message,
    /the memory does not suffice/,
  );
});

Deno.test("errors: did you mean", () => {
  const tasks = ["regression", "segmentation", "classification"];
  assertEquals(nearest("seg", tasks), "segmentation");
  assertEquals(nearest("regresion", tasks), "regression");
  assertEquals(nearest("cos", ["none", "cosine"]), "cosine");
  assertEquals(nearest("maee", ["cva", "mae"]), "mae");
  assertEquals(nearest("cav", ["gram", "cva", "mae"]), "cva");
  assertEquals(nearest("foo", ["resenc-s", "unet-b", "mae"]), undefined);
  assertEquals(nearest("x", []), undefined);
  assertEquals(oneOf("foo", ["a", "b"]), "it must be one of a, b");
  assertEquals(oneOf("segmentatoin", tasks).slice(0, 29), 'did you mean "segmentation"? ');
});
