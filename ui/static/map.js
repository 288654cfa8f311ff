// A map on a canvas: palette codes and outlines come packed from Python, everything is drawn here, nothing is fetched.
// One Map lives as long as its element; new data only changes what is different, so a new day never flickers.

const maps = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  let map = maps.get(parentElement);
  if (!map) maps.set(parentElement, (map = new DroughtMap(parentElement)));
  map.choose = (lat, lon) => setTriggerValue("cell", { lat, lon });
  map.show(data);
}

const NO_VALUE = 11, NO_CELL = 255, FADE = 350, MAX_ZOOM = 60;

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class DroughtMap {
  constructor(root) {
    this.root = root;
    this.$ = (selector) => root.querySelector(selector);
    this.canvas = this.$("canvas");
    this.frame = this.$(".frame");
    this.tip = this.$(".tip");
    this.live = this.$("[aria-live]");
    this.pointers = new Map();
    this.only = null; // palette position shown alone
    this.cursor = null; // {row, column} under the keyboard
    this.turn = 0;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.frame);
  }

  async show(data) {
    const turn = ++this.turn;
    const before = this.data;
    const codes = before?.codes === data.codes ? this.codes : await unpack(data.codes);
    const lines = before?.lines === data.lines ? this.lines : outline(new Int16Array((await unpack(data.lines)).buffer), data);
    const water = before?.water === data.water ? this.water : data.water && await unpack(data.water);
    if (turn !== this.turn) return; // something newer came while this was unpacked
    const moved = !before || before.area !== data.area;
    const redrawn = moved || before.codes !== data.codes;
    this.data = data;
    this.codes = codes;
    this.lines = lines;
    this.water = water;
    this.k = Math.cos(((data.north - (data.height * data.dy) / 2) * Math.PI) / 180);
    if (redrawn) {
      this.old = moved || matchMedia("(prefers-reduced-motion: reduce)").matches ? null : this.image;
      this.paint();
      this.faded = performance.now();
    }
    if (moved) this.cursor = null;
    this.words();
    this.legend();
    if (moved) this.resize(true);
    this.canvas.dataset.shown = data.shown; // for tests and for those who style
    this.draw();
  }

  words() {
    const { text } = this.data;
    this.canvas.setAttribute("aria-label", `${text.label}. ${this.data.title}`);
    this.canvas.setAttribute("aria-describedby", "help");
    this.$("#help").textContent = text.help;
    for (const [name, label] of [["in", text.zoomIn], ["out", text.zoomOut], ["whole", text.whole]]) {
      const button = this.$(`[data-zoom="${name}"]`);
      button.setAttribute("aria-label", label);
      button.title = label;
    }
  }

  legend() {
    const list = this.$(".legend");
    list.setAttribute("aria-label", this.data.text.legend);
    const rows = [...this.data.legend, { short: "", name: this.data.text.missing, share: this.data.missing, missing: true }];
    while (list.children.length < rows.length) {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.append(document.createElement("i"), document.createElement("b"), document.createElement("span"));
      const position = list.children.length;
      button.onclick = () => {
        this.only = this.only === position ? null : position;
        this.old = null;
        this.paint();
        this.legend();
        this.draw();
      };
      item.append(button);
      list.append(item);
    }
    rows.forEach((row, position) => {
      const button = list.children[position].firstChild, [swatch, name, share] = button.children;
      swatch.className = row.missing ? "missing" : "";
      swatch.style.background = row.missing ? "" : row.color || this.data.normal[this.theme()];
      name.textContent = [row.short, row.name].filter(Boolean).join(" ");
      share.textContent = row.share;
      button.setAttribute("aria-pressed", this.only === position);
      button.classList.toggle("nothing", /^0\s/.test(row.share) && this.only !== position);
    });
  }

  theme() {
    const [r, g, b] = (getComputedStyle(this.frame).backgroundColor.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
    return 0.3 * r + 0.6 * g + 0.1 * b < 128 ? "dark" : "light";
  }

  // codes -> an image of one pixel per cell, and a second one of the cells without a value
  paint() {
    const { width, height, legend, normal } = this.data, theme = this.theme();
    const table = new Uint32Array(256);
    legend.forEach((row, position) => {
      const hex = parseInt((row.color || normal[theme]).slice(1), 16);
      const alpha = this.only === null || this.only === position ? 255 : 38;
      table[position] = (alpha << 24) | ((hex & 255) << 16) | (hex & 0xff00) | (hex >> 16);
    });
    const [image, pixels] = blank(width, height), [hatch, dots] = blank(width, height);
    const fill = new Uint32Array(pixels.data.buffer), marks = new Uint32Array(dots.data.buffer);
    const missing = this.only === null || this.only === NO_VALUE ? 0xff808080 : 0x40808080;
    let any = false;
    for (let i = 0; i < this.codes.length; i++) {
      const code = this.codes[i];
      if (code === NO_VALUE) { marks[i] = missing; any = true; } else fill[i] = table[code];
    }
    image.getContext("2d").putImageData(pixels, 0, 0);
    hatch.getContext("2d").putImageData(dots, 0, 0);
    this.image = image;
    this.hatch = any ? hatch : null;
    this.painted = theme;
  }

  // -------------------------------------------------------------------- where things are: x = lon·cos(middle latitude)

  resize(whole = false) {
    if (!this.data) return;
    const wide = this.frame.clientWidth;
    if (!wide) return;
    const { width, height, dx, dy } = this.data;
    const shape = (height * dy) / (width * dx * this.k);
    const high = Math.round(Math.min(Math.max(wide * shape, 260), Math.max(320, Math.min(innerHeight * 0.62, 640))));
    const ratio = devicePixelRatio || 1;
    if (this.wide === wide && this.high === high && this.ratio === ratio && !whole) return;
    Object.assign(this, { wide, high, ratio });
    this.canvas.style.height = `${high}px`;
    this.canvas.width = Math.round(wide * ratio);
    this.canvas.height = Math.round(high * ratio);
    this.fit = Math.min((wide * 0.96) / (width * dx * this.k), (high * 0.96) / (height * dy));
    if (whole || !this.scale || this.zoomed() <= 1) this.whole();
    this.draw();
  }

  whole() {
    const { west, north, width, height, dx, dy } = this.data;
    this.scale = this.fit;
    this.x = (west + (width * dx) / 2) * this.k;
    this.y = north - (height * dy) / 2;
    this.canvas.style.touchAction = "pan-y"; // a finger scrolls the page until the map is zoomed
  }

  zoomed() { return this.scale / this.fit; }

  zoom(factor, px = this.wide / 2, py = this.high / 2) {
    const wanted = Math.min(Math.max(this.scale * factor, this.fit), this.fit * MAX_ZOOM);
    const [lon, lat] = this.place(px, py);
    this.scale = wanted;
    if (this.zoomed() <= 1.001) this.whole();
    else {
      this.x = lon * this.k - (px - this.wide / 2) / this.scale;
      this.y = lat + (py - this.high / 2) / this.scale;
      this.canvas.style.touchAction = "none";
      this.keep();
    }
    this.draw();
  }

  pan(px, py) {
    if (this.zoomed() <= 1.001) return;
    this.x -= px / this.scale;
    this.y += py / this.scale;
    this.keep();
    this.draw();
  }

  keep() { // the region never leaves the frame
    const { west, north, width, height, dx, dy } = this.data;
    this.x = Math.min(Math.max(this.x, west * this.k), (west + width * dx) * this.k);
    this.y = Math.min(Math.max(this.y, north - height * dy), north);
  }

  place(px, py) { return [(this.x + (px - this.wide / 2) / this.scale) / this.k, this.y - (py - this.high / 2) / this.scale]; }

  pixel(lon, lat) { return [this.wide / 2 + (lon * this.k - this.x) * this.scale, this.high / 2 + (this.y - lat) * this.scale]; }

  at(px, py) {
    const [lon, lat] = this.place(px, py), { west, north, dx, dy, width, height } = this.data;
    const row = Math.floor((north - lat) / dy), column = Math.floor((lon - west) / dx);
    if (row < 0 || column < 0 || row >= height || column >= width) return null;
    return this.codes[row * width + column] === NO_CELL ? null : { row, column };
  }

  centre({ row, column }) {
    const { west, north, dx, dy } = this.data;
    return [west + (column + 0.5) * dx, north - (row + 0.5) * dy];
  }

  // --------------------------------------------------------------------------------------------------------- drawing

  draw() {
    if (this.waiting || !this.data || !this.wide) return;
    this.waiting = true;
    requestAnimationFrame((now) => {
      this.waiting = false;
      this.frameNow(now);
    });
  }

  frameNow(now) {
    const { west, north, width, height, dx, dy, paper, selected } = this.data, c = this.canvas.getContext("2d");
    const theme = this.theme();
    if (this.painted !== theme) { this.paint(); this.legend(); this.old = null; }
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.fillStyle = paper[theme];
    c.fillRect(0, 0, this.wide, this.high);
    const [left, top] = this.pixel(west, north), w = width * dx * this.k * this.scale, h = height * dy * this.scale;
    c.imageSmoothingEnabled = false;
    const share = this.old ? Math.min(1, (now - this.faded) / FADE) : 1;
    if (share < 1 && this.old) c.drawImage(this.old, left, top, w, h);
    c.globalAlpha = share;
    c.drawImage(this.image, left, top, w, h);
    c.globalAlpha = 1;
    if (this.hatch) this.drawHatch(c, left, top, w, h, theme);
    c.save();
    c.transform(this.scale, 0, 0, -this.scale, this.wide / 2 - this.x * this.scale, this.high / 2 + this.y * this.scale);
    c.lineJoin = "round";
    c.lineWidth = Math.min(1.3, 0.6 + 0.12 * this.zoomed()) / this.scale;
    c.strokeStyle = theme === "dark" ? "rgba(236,240,243,.62)" : "rgba(38,46,54,.58)";
    c.stroke(this.lines);
    c.restore();
    if (this.hover) this.box(c, this.hover, theme, 1);
    if (selected) this.marker(c, selected, theme);
    if (this.cursor) this.box(c, this.cursor, theme, 2);
    if (share < 1) this.draw();
    else this.old = null;
  }

  drawHatch(c, left, top, w, h, theme) {
    const layer = (this.layer ??= document.createElement("canvas"));
    layer.width = this.canvas.width;
    layer.height = this.canvas.height;
    const l = layer.getContext("2d");
    l.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    l.imageSmoothingEnabled = false;
    l.drawImage(this.hatch, left, top, w, h);
    l.globalCompositeOperation = "source-in";
    l.fillStyle = (this.pattern ??= {})[theme] ??= stripes(l, theme);
    l.fillRect(0, 0, this.wide, this.high);
    l.globalCompositeOperation = "source-over";
    c.drawImage(layer, 0, 0, this.wide, this.high);
  }

  box(c, { row, column }, theme, line) {
    const { west, north, dx, dy } = this.data;
    const [x, y] = this.pixel(west + column * dx, north - row * dy), w = dx * this.k * this.scale, h = dy * this.scale;
    const grow = Math.max(0, (7 - Math.min(w, h)) / 2);
    for (const [colour, extra] of [[theme === "dark" ? "#000" : "#fff", 2], [theme === "dark" ? "#fff" : "#000", 0]]) {
      c.strokeStyle = colour;
      c.lineWidth = line + extra;
      c.strokeRect(x - grow, y - grow, w + 2 * grow, h + 2 * grow);
    }
  }

  marker(c, { lat, lon }, theme) {
    const [x, y] = this.pixel(lon, lat);
    for (const [colour, line] of [["#fff", 5], ["#111", 2.4]]) {
      c.strokeStyle = colour;
      c.lineWidth = line;
      c.beginPath();
      c.arc(x, y, 8, 0, 7);
      c.stroke();
    }
  }

  // ---------------------------------------------------------------------------------------------------------- hands

  describe(spot) {
    const [lon, lat] = this.centre(spot), { width, legend, text } = this.data, at = spot.row * width + spot.column;
    const row = legend[this.codes[at]];
    const name = row ? [row.short, row.name].filter(Boolean).join(" ") : text.missing;
    const side = (value, plus, minus) => `${Math.abs(value).toFixed(2)}° ${value < 0 ? minus : plus}`;
    return [name, ...this.amount(at, text), `${side(lat, "N", "S")}, ${side(lon, "E", "W")}`];
  }

  // soil moisture and how sure it is, where that is known
  amount(at, text) {
    const water = this.water?.[at] ?? NO_CELL, spread = this.water?.[at + this.codes.length];
    if (water === NO_CELL) return [];
    return [`${(water / 100).toFixed(2)} ± ${spread ? (spread / 100).toFixed(2) : "<0.01"} ${text.unit}`];
  }

  point(spot, px, py) {
    const same = this.hover?.row === spot?.row && this.hover?.column === spot?.column;
    this.hover = spot;
    this.tip.hidden = !spot;
    if (spot) {
      const lines = this.describe(spot).map((line, i) => {
        const part = document.createElement(i ? "div" : "strong");
        part.textContent = line;
        return part;
      });
      this.tip.replaceChildren(...lines);
      const { offsetWidth: w, offsetHeight: h } = this.tip;
      this.tip.style.left = `${Math.max(4, Math.min(px + 14, this.wide - w - 4))}px`;
      this.tip.style.top = `${py + 18 + h > this.high ? py - h - 10 : py + 14}px`;
    }
    if (!same) this.draw();
  }

  pick(spot) {
    if (!spot) return;
    const [lon, lat] = this.centre(spot);
    this.data.selected = { lat, lon }; // at once; Python confirms it with the next data
    this.draw();
    this.choose(lat, lon);
  }

  move(rows, columns) {
    const { width, height, selected, west, north, dx, dy } = this.data;
    if (!this.cursor) {
      const [lon, lat] = selected ? [selected.lon, selected.lat] : this.place(this.wide / 2, this.high / 2);
      this.cursor = { row: Math.floor((north - lat) / dy), column: Math.floor((lon - west) / dx) };
      if (!this.inside(this.cursor)) this.cursor = this.nearest(this.cursor);
    } else { // over water to the next cell in that direction
      let { row, column } = this.cursor;
      do { row += rows; column += columns; } while (row >= 0 && row < height && column >= 0 && column < width && !this.inside({ row, column }));
      if (this.inside({ row, column })) this.cursor = { row, column };
    }
    if (!this.cursor) return;
    const [lon, lat] = this.centre(this.cursor), [px, py] = this.pixel(lon, lat);
    if (px < 20 || py < 20 || px > this.wide - 20 || py > this.high - 20) { this.x = lon * this.k; this.y = lat; this.keep(); }
    this.point(this.cursor, ...this.pixel(lon, lat));
    this.live.textContent = this.describe(this.cursor).join(", ");
    this.draw();
  }

  inside({ row, column }) {
    const { width, height } = this.data;
    return row >= 0 && column >= 0 && row < height && column < width && this.codes[row * width + column] !== NO_CELL;
  }

  nearest({ row, column }) {
    const { width } = this.data;
    let best = null, least = Infinity;
    for (let i = 0; i < this.codes.length; i++) {
      if (this.codes[i] === NO_CELL) continue;
      const r = Math.floor(i / width), q = i % width, far = (r - row) ** 2 + (q - column) ** 2;
      if (far < least) { least = far; best = { row: r, column: q }; }
    }
    return best;
  }

  listen() {
    const { canvas, pointers } = this;
    const spot = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, spot(event));
      if (pointers.size === 1) this.start = spot(event);
      else this.start = null;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.data) return;
      const [px, py] = spot(event), last = pointers.get(event.pointerId);
      if (!last) return this.point(this.at(px, py), px, py);
      if (pointers.size === 2) {
        const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
        const far = Math.hypot(px - other[0], py - other[1]), was = Math.hypot(last[0] - other[0], last[1] - other[1]);
        this.zoom(far / (was || 1), (px + other[0]) / 2, (py + other[1]) / 2);
      } else if (this.start && Math.hypot(px - this.start[0], py - this.start[1]) > 5) {
        this.start = null;
        canvas.classList.add("drag");
      }
      if (!this.start && pointers.size === 1) this.pan(px - last[0], py - last[1]);
      pointers.set(event.pointerId, [px, py]);
    });
    const end = (event) => {
      if (event.type === "pointerup" && this.start && this.data) {
        this.cursor = null;
        this.pick(this.at(...spot(event)));
      }
      pointers.delete(event.pointerId);
      this.start = null;
      canvas.classList.remove("drag");
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => this.data && this.point(null));
    canvas.addEventListener("dblclick", (event) => this.zoom(2, ...spot(event)));
    canvas.addEventListener("wheel", (event) => {
      // the wheel scrolls the page unless it is meant for the map
      if (!this.data || !(event.ctrlKey || event.metaKey || this.root.activeElement === canvas || document.activeElement === canvas)) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), ...spot(event));
    }, { passive: false });
    canvas.addEventListener("blur", () => { this.cursor = null; if (this.data) this.point(null); this.draw(); });
    canvas.addEventListener("keydown", (event) => {
      if (!this.data || event.ctrlKey || event.metaKey || event.altKey) return;
      const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (steps[event.key]) this.move(...steps[event.key]);
      else if (event.key === "Enter" || event.key === " ") this.pick(this.cursor);
      else if (event.key === "+" || event.key === "=") this.zoom(1.5);
      else if (event.key === "-") this.zoom(1 / 1.5);
      else if (event.key === "0" || event.key === "Home") { this.whole(); this.draw(); }
      else if (event.key === "Escape") { this.cursor = null; this.point(null); this.draw(); }
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.$(".zoom").addEventListener("click", (event) => {
      const what = event.target.closest("button")?.dataset.zoom;
      if (!what || !this.data) return;
      if (what === "whole") { this.whole(); this.draw(); } else this.zoom(what === "in" ? 1.6 : 1 / 1.6);
    });
    // the theme is known by the background colour, whose change ends a transition
    this.frame.addEventListener("transitionend", () => this.draw());
  }
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return [canvas, new ImageData(width, height)];
}

function stripes(context, theme) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const t = tile.getContext("2d");
  t.strokeStyle = theme === "dark" ? "rgba(220,225,230,.5)" : "rgba(70,80,90,.5)";
  t.lineWidth = 1;
  t.beginPath();
  for (const shift of [-6, 0, 6]) { t.moveTo(shift, 6); t.lineTo(shift + 6, 0); }
  t.stroke();
  return context.createPattern(tile, "repeat");
}

// hundredths of a degree, n, x, y, then n - 1 steps; drawn in x = lon·cos(middle latitude)
function outline(stream, { north, height, dy }) {
  const k = Math.cos(((north - (height * dy) / 2) * Math.PI) / 180), path = new Path2D();
  for (let i = 0; i < stream.length; ) {
    const n = stream[i];
    let x = stream[i + 1], y = stream[i + 2];
    path.moveTo((x / 100) * k, y / 100);
    for (let j = 1; j < n; j++) {
      x += stream[i + 1 + 2 * j];
      y += stream[i + 2 + 2 * j];
      path.lineTo((x / 100) * k, y / 100);
    }
    i += 1 + 2 * n;
  }
  return path;
}
