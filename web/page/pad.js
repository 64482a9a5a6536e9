// The canvas: ink by pointer or by keys, and what a model takes of it.
const SIZE = 280;
const PEN = 22;
const STEP = 8; // of the pen, by an arrow key
const FINE = 4; // samples a pixel and side

const DIGITS = [
  [[[140, 40], [95, 60], [75, 110], [75, 170], [95, 220], [140, 240], [185, 220], [205, 170], [205, 110], [185, 60], [140, 40]]],
  [[[110, 75], [145, 40], [145, 240]]],
  [[[85, 85], [105, 50], [145, 40], [185, 60], [190, 100], [160, 145], [110, 190], [80, 235], [200, 235]]],
  [[[85, 60], [130, 40], [180, 60], [180, 105], [130, 130], [180, 150], [190, 200], [145, 238], [85, 220]]],
  [[[170, 240], [170, 40], [75, 170], [215, 170]]],
  [[[190, 42], [100, 42], [90, 130], [145, 115], [190, 150], [185, 205], [140, 240], [85, 222]]],
  [[[175, 45], [120, 75], [88, 140], [85, 195], [115, 238], [165, 235], [190, 195], [170, 155], [125, 150], [90, 185]]],
  [[[80, 45], [200, 45], [155, 135], [125, 240]]],
  [[[140, 135], [95, 105], [100, 60], [140, 40], [180, 60], [185, 105], [140, 135], [90, 175], [95, 222], [140, 240], [185, 222], [190, 175], [140, 135]]],
  [[[190, 90], [160, 125], [110, 120], [92, 85], [115, 45], [165, 42], [190, 80], [185, 150], [160, 240]]],
];

export class Pad {
  constructor(canvas, changed) {
    Object.assign(this, { canvas, changed, paper: canvas.getContext("2d", { willReadFrequently: true }), at: [140, 140] });
    canvas.width = canvas.height = SIZE;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drawing = this.place(event);
      this.line(this.drawing, this.drawing);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.drawing) return;
      const to = this.place(event);
      this.line(this.drawing, to);
      this.drawing = to;
      changed(false);
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, () => {
        if (this.drawing) changed(true);
        this.drawing = null;
      });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  place({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [((clientX - left) / width) * SIZE, ((clientY - top) / height) * SIZE];
  }

  line([ax, ay], [bx, by]) {
    const { paper } = this;
    paper.lineWidth = PEN;
    paper.lineCap = paper.lineJoin = "round";
    paper.strokeStyle = getComputedStyle(this.canvas).color;
    paper.beginPath();
    paper.moveTo(ax, ay);
    paper.lineTo(bx, by + 0.01); // a point is a line too
    paper.stroke();
  }

  /** Arrows move the pen, and draw with Shift; Delete clears. */
  key(event) {
    const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") this.clear();
    if (!by) return;
    event.preventDefault();
    const to = this.at.map((each, i) => Math.min(SIZE - PEN, Math.max(PEN, each + by[i])));
    if (event.shiftKey) {
      this.line(this.at, to);
      this.changed(true);
    }
    this.at = to;
    this.moved?.(this.at.map((each) => Math.round((each / SIZE) * 100)));
  }

  clear() {
    this.paper.clearRect(0, 0, SIZE, SIZE);
    this.changed(true);
  }

  /** Draw a digit, never twice the same. */
  show(digit) {
    this.paper.clearRect(0, 0, SIZE, SIZE);
    const [lean, tall] = [(Math.random() - 0.5) * 0.3, 0.85 + Math.random() * 0.25];
    const moved = ([x, y]) => [140 + (x - 140) * tall + (140 - y) * lean, 140 + (y - 140) * tall];
    for (const stroke of DIGITS[digit]) for (let i = 1; i < stroke.length; i++) this.line(moved(stroke[i - 1]), moved(stroke[i]));
    this.changed(true);
  }

  /** What a model of this shape [1, side, side] takes, in 0..1: the ink as the data set has it. Null without ink. */
  input([, side]) {
    const ink = this.paper.getImageData(0, 0, SIZE, SIZE).data;
    let [left, top, right, bottom] = [SIZE, SIZE, -1, -1];
    for (let y = 0; y < SIZE; y++)
      for (let x = 0; x < SIZE; x++)
        if (ink[(y * SIZE + x) * 4 + 3] > 64) {
          if (x < left) left = x;
          if (x > right) right = x;
          if (y < top) top = y;
          if (y > bottom) bottom = y;
        }
    if (right < 0) return null;
    const small = side <= 10; // scikit-learn's digits fill their 8 x 8; NIST's have 20 of 28, about the centre of mass
    const box = small ? side : Math.round((side * 20) / 28);
    const [width, height] = [right - left + 1, bottom - top + 1];
    const scale = (box * FINE) / Math.max(width, height);
    const plain = this.scaled([left, top, width, height], scale, side, [0, 0]);
    if (small) return plain;
    let [sum, sx, sy] = [0, 0, 0];
    plain.forEach((each, i) => {
      sum += each;
      sx += each * (i % side);
      sy += each * Math.floor(i / side);
    });
    const off = [(side - 1) / 2 - sx / sum, (side - 1) / 2 - sy / sum].map((each) => Math.round(each) * FINE);
    return this.scaled([left, top, width, height], scale, side, off);
  }

  scaled([left, top, width, height], scale, side, [dx, dy]) {
    const fine = side * FINE;
    const paper = new OffscreenCanvas(fine, fine).getContext("2d", { willReadFrequently: true });
    paper.imageSmoothingQuality = "high";
    const [w, h] = [width * scale, height * scale];
    paper.drawImage(this.canvas, left, top, width, height, (fine - w) / 2 + dx, (fine - h) / 2 + dy, w, h);
    const data = paper.getImageData(0, 0, fine, fine).data;
    const out = new Float32Array(side * side);
    for (let y = 0; y < fine; y++)
      for (let x = 0; x < fine; x++)
        out[Math.floor(y / FINE) * side + Math.floor(x / FINE)] += data[(y * fine + x) * 4 + 3] / 255 / FINE ** 2;
    return out.map((each) => Math.min(1, each));
  }
}
