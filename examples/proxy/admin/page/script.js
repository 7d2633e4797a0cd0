"use strict";
// The page is whole without this: it asks for the same page again, and knows how fast its numbers grow.
document.documentElement.classList.add("live");
let before = { at: 0, totals: new Map() };
function rates(main) {
  const at = performance.now(), seconds = (at - before.at) / 1000, totals = new Map();
  for (const table of main.querySelectorAll("table.endpoints")) {
    const rows = [...table.querySelectorAll("tr[data-total]")];
    const grown = rows.map((row) => {
      const key = row.dataset.key, total = Number(row.dataset.total), old = before.totals.get(key);
      totals.set(key, total);
      return old === undefined ? undefined : Math.max(0, total - old) / seconds;
    });
    const all = grown.reduce((sum, rate) => sum + (rate || 0), 0);
    rows.forEach((row, index) => {
      const rate = grown[index];
      row.querySelector(".rate").textContent = rate === undefined ? "…" : rate.toFixed(1);
      row.querySelector(".bar i").style.width = all && rate ? 100 * rate / all + "%" : 0;
    });
  }
  before = { at, totals };
}
async function look() {
  try {
    const answer = await fetch("/", { signal: AbortSignal.timeout(5000) });
    const main = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    // Not under the hands of somebody who is about to copy an address.
    if (getSelection().isCollapsed) {
      rates(main);
      document.querySelector("main").replaceWith(main);
    }
    document.body.classList.remove("stale");
  } catch {
    const state = document.getElementById("state");
    state.textContent = "no answer: what is shown is old";
    state.className = "dot bad";
    document.body.classList.add("stale");
  }
  setTimeout(look, 1000);
}
rates(document.querySelector("main"));
setTimeout(look, 1000);
