// Try without a mouse or without this file works all the same: it adds dropping, and says what is going on.
"use strict";
for (const form of document.querySelectorAll("form[data-drop]")) {
  const status = form.querySelector("[data-status]");
  const input = form.querySelector("input[type=file]");
  const zone = form.querySelector(".drop");
  form.addEventListener("submit", () => {
    status.textContent = "Judging; the first file takes some seconds longer.";
    form.querySelector("button").disabled = true;
  });
  if (!zone) continue;
  const count = () => { status.textContent = input.files.length ? `${input.files.length} chosen` : "You may drop files here."; };
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  }
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    input.files = event.dataTransfer.files;
    count();
  });
  input.addEventListener("change", count);
  count();
}
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form[data-drop] button")) button.disabled = false;
});
