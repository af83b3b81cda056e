// Places stay a ranking: a place that is taken changes hands, and the last one falls to the last clip.
"use strict";

for (const question of document.querySelectorAll(".question")) {
  const groups = [...question.querySelectorAll(".places")];
  const chosen = (group) => group.querySelector("input:checked");
  const before = new Map(groups.map((group) => [group, chosen(group)?.value]));
  question.addEventListener("change", (event) => {
    const here = event.target.closest(".places");
    for (const other of groups) {
      if (other === here || chosen(other)?.value !== event.target.value) continue;
      chosen(other).checked = false;
      const left = other.querySelector(`input[value="${before.get(here)}"]`);
      if (left) left.checked = true;
    }
    const open = groups.filter((group) => !chosen(group));
    if (open.length === 1) {
      const taken = new Set(groups.map((group) => chosen(group)?.value));
      const last = [...open[0].querySelectorAll("input")].find((input) => !taken.has(input.value));
      last.checked = true;
    }
    for (const group of groups) before.set(group, chosen(group)?.value);
  });
}

const clips = [...document.querySelectorAll("video")];
const playTogether = () => {
  for (const clip of clips) {
    clip.currentTime = 0;
    clip.play().catch(() => {}); // a browser that plays nothing by itself has the clip's own button
  }
};
const again = document.getElementById("again");
if (again) {
  again.hidden = false;
  again.addEventListener("click", playTogether);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) playTogether();
}
