// On narrow screens the labels of the plot would be too small: the last one is told below it.

const readout = document.getElementById("plot-readout");
for (const point of document.querySelectorAll(".plot .point")) {
  const tell = () => { readout.textContent = point.getAttribute("aria-label"); };
  point.addEventListener("focus", tell);
  point.addEventListener("pointerenter", tell);
  point.addEventListener("click", tell);
}
