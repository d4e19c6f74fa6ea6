import { assertEquals, assertThrows } from "@std/assert";
import { isListing, readListing } from "../../lib/data/openmind.ts";
import { UserError } from "../../lib/errors.ts";

Deno.test("pretrain_data.json: images in order, variables resolved from the list's own folder", () => {
  const image = (name: string, image_path: string) => ({
    name,
    modality: "T1w",
    image_path,
    associated_masks: name === "a" ? null : { anonymization_mask: name === "b" ? "m.nii.gz" : null },
  });
  const images = [
    image("a", "$nnssl_raw/Dataset745/x/a.nii.gz"),
    image("b", "rel/b.nii.gz"),
    image("c", "/abs/c.nii"),
  ];
  const text = JSON.stringify({ datasets: { d1: { subjects: { s1: { sessions: { e1: { images } } } } } } });
  const found = readListing("/raw/Dataset745/pretrain_data.json", text);
  assertEquals(found.map((f) => f.path), [
    "/raw/Dataset745/x/a.nii.gz",
    "/raw/Dataset745/rel/b.nii.gz",
    "/abs/c.nii",
  ]);
  assertEquals(found.map((f) => f.masks), [undefined, true, undefined]);
  assertEquals(found[0], {
    path: "/raw/Dataset745/x/a.nii.gz",
    name: "d1/s1/e1/a",
    subject: "d1/s1",
    modality: "T1w",
  });
});

Deno.test("openneuro_metadata.csv: quoted fields, empty lines, subject from the path", () => {
  const text =
    'modality,image_path,anon_mask_path,health_status\r\n"T1w","ds1/sub-2/x.nii.gz",m.nii.gz,"well, ""fine"""\n\nFLAIR,y.nii,,\n';
  assertEquals(readListing("om/openneuro_metadata.csv", text), [
    {
      path: "om/ds1/sub-2/x.nii.gz",
      name: "ds1/sub-2/x.nii.gz",
      modality: "T1w",
      masks: true,
      subject: "ds1/sub-2",
    },
    { path: "om/y.nii", name: "y.nii", modality: "FLAIR" },
  ]);
});

Deno.test("a list that is none names the file and the field", () => {
  for (
    const [file, text, word] of [
      ["a.json", "{}", "datasets"],
      ["a.json", "{", "JSON"],
      ["a.csv", "path,modality\nx,y\n", "image_path"],
      ["a.csv", "image_path,modality\n,T1w\n", "a.csv:2"],
      ["a.csv", "image_path\n", "no image"],
    ]
  ) assertThrows(() => readListing(file, text), UserError, word);
  assertEquals(["dataset.json", "x/pretrain_data.json", "m.CSV", "a.nii"].map(isListing), [
    false,
    true,
    true,
    false,
  ]);
});
