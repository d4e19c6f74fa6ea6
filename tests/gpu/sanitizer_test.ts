/** What is made of the words of compute-sanitizer. */
import { assertEquals } from "@std/assert";
import { judged } from "../../lib/gpu/sanitizer.ts";

Deno.test("sanitizer: a clean summary passes, findings fail, even of a tool whose time was over", () => {
  const of = (lines: string[], ended = false) => {
    const { ok, summary, skipped } = judged("memcheck", lines, ended, 30);
    return [ok, summary ?? skipped];
  };
  const found = "Invalid __global__ write of size 4 bytes";
  assertEquals(of(["COMPUTE-SANITIZER", "ERROR SUMMARY: 0 errors"]), [true, "ERROR SUMMARY: 0 errors"]);
  assertEquals(of([found, "ERROR SUMMARY: 1 error"]), [false, "ERROR SUMMARY: 1 error"]);
  assertEquals(of(["COMPUTE-SANITIZER", found, "at k+0x10"], true), [false, found]);
  assertEquals(of(["COMPUTE-SANITIZER"], true), [undefined, "it found nothing in the 30 s that it had"]);
  assertEquals(of(["Error: Device not supported"]), [undefined, "Error: Device not supported"]);
  const races = "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)";
  assertEquals(of([races]), [true, races]);
});
