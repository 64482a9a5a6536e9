// A window from the motion sensor of a phone (DeviceMotionEvent), by the names of its signals.
const RADIANS = Math.PI / 180;
const turn = (axis) => ({ rotationRate }) => (rotationRate?.[axis] == null ? null : rotationRate[axis] * RADIANS);
const push = (axis) => ({ accelerationIncludingGravity }) => accelerationIncludingGravity?.[axis];
const SIGNALS = {
  x_acc: push("x"), y_acc: push("y"), z_acc: push("z"), // m/s^2, with gravity
  x_gyro: turn("beta"), y_gyro: turn("gamma"), z_gyro: turn("alpha"), // rad/s
};
const PATIENCE = 2_000; // milliseconds beyond a window's own

/** Whether such windows can be recorded here. */
export const senses = ({ channels, rate }) =>
  rate > 0 && channels.every((each) => Object.hasOwn(SIGNALS, each)) && "DeviceMotionEvent" in globalThis;

/** One window [channels x samples], sampled evenly. Throws where no sensor answers. */
export async function sensed({ channels, rate }, samples) {
  const asked = globalThis.DeviceMotionEvent.requestPermission?.();
  if (asked && (await asked) !== "granted") throw new Error("the motion sensor was not allowed");
  const long = (1000 * samples) / rate;
  const heard = [];
  await new Promise((resolve, reject) => {
    const hear = (event) => {
      const values = channels.map((each) => SIGNALS[each](event));
      if (values.some((each) => !Number.isFinite(each))) return;
      heard.push([event.timeStamp, values]);
      if (event.timeStamp - heard[0][0] >= long) end(resolve);
    };
    const end = (how, what) => {
      clearTimeout(timer);
      removeEventListener("devicemotion", hear);
      how(what);
    };
    const silent = new Error("no motion sensor answered: this device has none, or lets no page read it");
    const timer = setTimeout(() => end(reject, silent), long + PATIENCE);
    addEventListener("devicemotion", hear);
  });
  const out = new Float32Array(channels.length * samples);
  for (let k = 0, after = 1; k < samples; k++) {
    const time = heard[0][0] + (1000 * k) / rate;
    while (after < heard.length - 1 && heard[after][0] < time) after++;
    const [[from, a], [to, b]] = [heard[after - 1], heard[after]];
    const share = to > from ? Math.min(1, Math.max(0, (time - from) / (to - from))) : 0;
    a.forEach((each, c) => (out[c * samples + k] = each + share * (b[c] - each)));
  }
  return out;
}
