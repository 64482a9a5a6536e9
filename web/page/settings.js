// What the user of this page has decided, in the words of duetto/device/settings.py. `leaves` is the most that may leave
// for learning: "features", which is no input (answers, and what the user says was right), or "raw".
import * as kept from "./kept.js";

const DEFAULT = { leaves: "features", samples_a_day: 100, bytes_a_day: 50_000_000 };

export const settings = async () => ({ ...DEFAULT, ...(await kept.get("settings")) });
export const decide = async (changed) => kept.put("settings", { ...(await settings()), ...changed });
export const inputsMay = async () => (await settings()).leaves === "raw";

/** Whether one more input of so many bytes may leave for learning today; it is counted then. */
export async function taken(nbytes, now = new Date()) {
  const { leaves, samples_a_day, bytes_a_day } = await settings();
  if (leaves !== "raw") return false;
  const today = now.toLocaleDateString("sv"); // as 2026-11-22, where the user is
  const before = await kept.get("daily");
  const { samples, bytes } = before?.day === today ? before : { samples: 0, bytes: 0 };
  if (samples >= samples_a_day || bytes + nbytes > bytes_a_day) return false;
  await kept.put("daily", { day: today, samples: samples + 1, bytes: bytes + nbytes });
  return true;
}
