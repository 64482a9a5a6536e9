// Windows of a sensor: from a file, or recorded; one of them is shown as a picture, and answered.
import { senses, sensed } from "./sensor.js";
import { standardised, windows } from "./shown.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDE, HIGH] = [300, 120];

export class Windows {
  /** `at(id)` gives the elements; `changed(done)` is called when another window is there. */
  constructor(at, changed) {
    Object.assign(this, { at, changed, rows: [], which: 0 });
    at("file").addEventListener("change", ({ target }) => target.files[0] && this.file(target.files[0]));
    at("before").addEventListener("click", () => this.show(this.which - 1));
    at("after").addEventListener("click", () => this.show(this.which + 1));
    at("sense").addEventListener("click", () => this.record());
    at("window").addEventListener("dragover", (event) => event.preventDefault());
    at("window").addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.file(event.dataTransfer.files[0]);
    });
  }

  /** From now on windows of this model; what is here stays where it fits. */
  use(shape, shows) {
    const size = shape.reduce((a, b) => a * b, 1);
    if (size !== this.size) [this.rows, this.which] = [[], 0];
    Object.assign(this, { shape, shows, size });
    const { channels } = shows;
    const signals = `${channels.length} signals (${channels.join(", ")}) of ${shape.at(-1)} samples each, one signal after the other`;
    this.at("window-takes").textContent = `A window has ${size} numbers${shape.length > 1 ? `: ${signals}` : ""}.`;
    this.at("sense").hidden = !senses(shows);
    this.draw();
  }

  async file(file) {
    try {
      this.rows = windows(await file.text(), file.name, this.size);
      this.fault("");
      this.show(0);
    } catch (fault) {
      this.fault(fault.message);
    }
  }

  async record() {
    const { at } = this;
    at("sense").disabled = true;
    at("which").textContent = "Recording …";
    try {
      this.rows = [...this.rows, await sensed(this.shows, this.shape.at(-1))];
      this.fault("");
      this.show(this.rows.length - 1);
    } catch (fault) {
      this.fault(fault.message);
      this.draw();
    } finally {
      at("sense").disabled = false;
    }
  }

  fault(text) {
    this.at("window-fault").hidden = !text;
    this.at("window-fault").textContent = text;
  }

  show(which) {
    this.which = Math.min(this.rows.length - 1, Math.max(0, which));
    this.draw();
    this.changed(true);
  }

  /** What the model takes of the window that is shown; null where none is. */
  input() {
    return this.rows.length ? standardised(this.rows[this.which], this.shows) : null;
  }

  draw() {
    const { at, rows, which } = this;
    const { channels } = this.shows;
    at("before").disabled = !which;
    at("after").disabled = which + 1 >= rows.length;
    at("which").textContent = rows.length ? `Window ${which + 1} of ${rows.length}` : "No window yet";
    at("signal").replaceChildren();
    at("legend").replaceChildren();
    if (!rows.length) return at("signal").setAttribute("aria-label", "No window yet");
    const [x, raw] = [this.input(), rows[which]];
    const [low, high] = [Math.min(...x), Math.max(...x)];
    const length = x.length / channels.length;
    const said = channels.map((name, c) => {
      const line = document.createElementNS(SVG, "polyline");
      const place = (each, i) =>
        `${((WIDE * i) / Math.max(1, length - 1)).toFixed(1)},${(HIGH - 4 - ((HIGH - 8) * (each - low)) / (high - low || 1)).toFixed(1)}`;
      line.setAttribute("points", Array.from(x.subarray(c * length, (c + 1) * length), place).join(" "));
      line.setAttribute("class", `s${c % 6}`);
      at("signal").append(line);
      const mark = document.createElement("span");
      mark.className = `s${c % 6}`;
      mark.textContent = name;
      if (channels.length > 1) at("legend").append(mark, " ");
      const own = raw.subarray(c * length, (c + 1) * length);
      return `${name} from ${Math.min(...own).toPrecision(3)} to ${Math.max(...own).toPrecision(3)}`;
    });
    at("signal").setAttribute("aria-label", `Window ${which + 1}, ${length} samples: ${said.join("; ")}`);
  }
}
