// Rasterise the named icons of Fluent Emoji Flat (Microsoft, MIT) as straight-alpha RGBA.
// usage: node render.mjs PACKAGES_DIR OUTPUT.rgba SIZE ICON [ICON ...]
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [directory, output, size, ...names] = process.argv.slice(2);
const require = createRequire(resolve(directory, "package.json"));
const { Resvg } = require("@resvg/resvg-js");
const iconsPath = join(directory, "node_modules/@iconify-json/fluent-emoji-flat/icons.json");
const set = JSON.parse(readFileSync(iconsPath, "utf8"));

const pixels = names.map((name) => {
  const icon = set.icons[name];
  if (!icon) throw new Error(`Fluent Emoji Flat has no icon '${name}'`);
  const box = `0 0 ${icon.width ?? set.width ?? 32} ${icon.height ?? set.height ?? 32}`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="${box}">${icon.body}</svg>`;
  const image = new Resvg(svg, { fitTo: { mode: "width", value: Number(size) } }).render();
  if (image.width !== Number(size) || image.height !== Number(size)) {
    throw new Error(`icon '${name}' is not square`);
  }
  return Buffer.from(image.pixels);
});
writeFileSync(output, Buffer.concat(pixels));
