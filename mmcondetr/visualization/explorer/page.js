// What is on the page and what its controls do. `state` is the only thing that changes; show() draws it.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId('data').textContent);
const state = { detection: 0, layer: data.layers.length - 1, kind: 0, head: MEAN, opacity: 65, overlay: true, shared: false, cells: false, mask: true, threshold: data.threshold };
let maps = null;
let playing = null;

function element(tag, properties = {}, parent = null) {
  const made = Object.assign(document.createElement(tag), properties);
  if (parent) parent.append(made);
  return made;
}

const pressed = (button, is) => button.setAttribute('aria-pressed', String(is));
const headName = (head) => (head === MEAN ? 'mean of heads' : `head ${head}`);
const chosen = () => data.detections[state.detection];
const isShown = (detection) => detection === chosen() || detection.score >= state.threshold;
const nameOf = (detection) => `${detection.name} ${detection.score.toFixed(2)}`;
const weightText = (weight) => (weight >= 0.1 ? weight.toFixed(2) : weight.toPrecision(2));
const heads = [MEAN, ...Array(data.heads).keys()];

function set(change) {
  Object.assign(state, change);
  show();
}

// A lower threshold shows more; a choice that falls below a raised one gives way to the best.
function setThreshold(threshold) {
  const kept = chosen().score >= threshold || data.detections[0].score < threshold;
  set({ threshold, detection: kept ? state.detection : 0 });
}

// A click takes the smallest box there; further ones at that place what lies below it, so that all boxes are reached.
let clicked = null;
function chooseAt(event, index) {
  const boxes = [...byId('boxes').children];
  const below = document.elementsFromPoint(event.clientX, event.clientY).map((one) => boxes.indexOf(one)).filter((at) => at >= 0);
  const again = clicked && Math.hypot(event.clientX - clicked[0], event.clientY - clicked[1]) < 5;
  clicked = [event.clientX, event.clientY];
  if (event.detail === 0 || !below.length) set({ detection: index }); // the keyboard means this one
  else set({ detection: again ? below[(below.indexOf(state.detection) + 1) % below.length] : below[0] });
}

function step(list, current, by) {
  const at = list.indexOf(current) + by;
  return list[Math.min(Math.max(at, 0), list.length - 1)];
}

// ---- building, once ----

function build() {
  const { width, height, src } = data.image;
  byId('title').textContent = data.title;
  document.title = `${data.title} – attention explorer`;
  byId('image').src = src;
  byId('image').alt = `The image, with ${data.detections.length} detections`;
  byId('image').classList.toggle('small', width < 400);
  byId('drawing').setAttribute('viewBox', `0 0 ${width} ${height}`);
  document.documentElement.style.setProperty('--aspect', width / height);
  if (data.detections.some((detection) => detection.mask)) {
    const layer = element('img', { id: 'mask-layer', alt: '' });
    byId('overlay').after(layer);
    byId('mask-check').hidden = false;
  }
  element('div', { id: 'mark', textContent: '✕' }, byId('stage'));
  element('div', { id: 'tag' }, byId('stage'));
  data.detections.forEach((detection, index) => {
    const choose = () => set({ detection: index });
    element('button', { type: 'button', textContent: nameOf(detection), onclick: choose }, byId('detections'));
    const hit = element('button', { type: 'button', title: nameOf(detection) }, byId('boxes'));
    hit.addEventListener('click', (event) => chooseAt(event, index));
    hit.setAttribute('aria-label', `${nameOf(detection)}, query ${detection.query}`);
  });
  KINDS.forEach((kind, index) => {
    element('button', { type: 'button', textContent: kind, onclick: () => set({ kind: index }) }, byId('kinds'));
  });
  heads.forEach((head) => {
    const button = element('button', { type: 'button', textContent: head === MEAN ? 'mean' : head, onclick: () => set({ head }) }, byId('heads'));
    button.setAttribute('aria-label', headName(head));
  });
  data.layers.forEach((layer, index) => {
    const bar = element('button', { type: 'button', onclick: () => set({ layer: index }) }, byId('layers'));
    bar.style.left = `${100 * index / Math.max(1, data.layers.length - 1)}%`;
    element('span', {}, bar);
    element('i', {}, bar);
  });
  byId('layer').max = data.layers.length - 1;
  byId('threshold').min = Math.floor(100 * data.floor);
  buildThumbnails();
  paintScale();
}

function buildThumbnails() {
  const grid = byId('thumbnails');
  grid.style.gridTemplateColumns = `auto repeat(${heads.length}, minmax(74px, 1fr))`;
  element('span', {}, grid);
  heads.forEach((head) => element('span', { className: 'column-name', textContent: head === MEAN ? 'mean' : `head ${head}` }, grid));
  KINDS.forEach((kind, index) => {
    element('span', { className: 'row-name', textContent: kind }, grid);
    heads.forEach((head) => {
      const button = element('button', { type: 'button', onclick: () => set({ kind: index, head }) }, grid);
      button.setAttribute('aria-label', `${kind}, ${headName(head)}`);
      element('canvas', {}, button);
    });
  });
}

function paintScale() {
  const context = byId('scale-bar').getContext('2d');
  for (let i = 0; i < 256; i++) {
    context.fillStyle = `rgb(${maps.colours.slice(3 * i, 3 * i + 3).join()})`;
    context.fillRect(i, 0, 1, 1);
  }
}

// ---- showing the state ----

const weightsOf = (kind, head) => maps.get(state.detection, state.layer, kind, head);

// What the brightest colour stands for: this map's largest weight, or that of all heads.
function topOf(kind, head) {
  if (!state.shared) return largest(weightsOf(kind, head));
  return Math.max(...heads.filter((one) => one !== MEAN).map((one) => largest(weightsOf(kind, one))));
}

function show() {
  showOverlay();
  showBoxes();
  showMask();
  showControls();
  showThumbnails();
}

function showOverlay() {
  const top = topOf(state.kind, state.head);
  const width = state.cells ? 640 : 400;
  maps.paint(byId('overlay'), weightsOf(state.kind, state.head), top, !state.cells, width, true);
  byId('overlay').style.opacity = state.opacity / 100;
  byId('stage').classList.toggle('plain', !state.overlay || state.opacity === 0);
  byId('scale-max').textContent = weightText(top);
}

function svgRectangle(box, name) {
  const rectangle = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
  const values = { x: box[0], y: box[1], width: Math.max(box[2] - box[0], 0), height: Math.max(box[3] - box[1], 0), class: name };
  for (const [key, value] of Object.entries(values)) rectangle.setAttribute(key, value);
  return rectangle;
}

function showBoxes() {
  const { width, height } = data.image;
  const selected = chosen().layers;
  const box = selected[state.layer].box;
  const others = data.detections.filter((one) => one !== chosen() && isShown(one)).map((one) => svgRectangle(one.layers[state.layer].box, 'other'));
  const trace = selected.map((layer) => svgRectangle(layer.box, 'trace'));
  byId('drawing').replaceChildren(...others, ...trace, svgRectangle(box, 'back'), svgRectangle(box, 'chosen'));

  const percent = (value, whole) => `${100 * Math.min(Math.max(value / whole, 0), 1)}%`;
  [...byId('boxes').children].forEach((hit, index) => {
    const [x1, y1, x2, y2] = data.detections[index].layers[state.layer].box;
    const inside = { left: Math.max(x1, 0), top: Math.max(y1, 0), right: Math.min(x2, width), bottom: Math.min(y2, height) };
    hit.style.left = percent(inside.left, width);
    hit.style.top = percent(inside.top, height);
    hit.style.width = percent(inside.right - inside.left, width);
    hit.style.height = percent(inside.bottom - inside.top, height);
    hit.style.zIndex = Math.round(1e4 * (1 - (inside.right - inside.left) * (inside.bottom - inside.top) / (width * height)));
    pressed(hit, index === state.detection);
    hit.hidden = !isShown(data.detections[index]);
    hit.style.background = 'none';
  });

  const reference = selected[state.layer].reference;
  byId('mark').hidden = !reference;
  if (reference) Object.assign(byId('mark').style, { left: percent(reference[0], width), top: percent(reference[1], height) });
  const above = box[1] / height > 0.07;
  byId('tag').textContent = `${selected[state.layer].name} ${selected[state.layer].score.toFixed(2)}`;
  Object.assign(byId('tag').style, {
    left: percent(Math.min(box[0], width * 0.8), width), top: percent(Math.max(box[1], 0), height),
    transform: above ? 'translateY(-100%)' : 'none', zIndex: 20000,
  });
}

function showMask() {
  const layer = byId('mask-layer');
  if (!layer) return;
  layer.hidden = !state.mask || !chosen().mask;
  if (chosen().mask) layer.src = chosen().mask;
}

function showControls() {
  const layer = data.layers[state.layer];
  [...byId('detections').children].forEach((chip, index) => {
    pressed(chip, index === state.detection);
    chip.hidden = !isShown(data.detections[index]);
  });
  byId('threshold').value = Math.round(100 * state.threshold);
  byId('threshold-value').textContent = state.threshold.toFixed(2);
  byId('shown').textContent = `${data.detections.filter((one) => one.score >= state.threshold).length} of ${data.detections.length}`;
  [...byId('kinds').children].forEach((button, index) => pressed(button, index === state.kind));
  [...byId('heads').children].forEach((button, index) => pressed(button, heads[index] === state.head));
  byId('kind-note').textContent = data.notes[layer][state.kind];
  [...byId('layers').children].forEach((bar, index) => {
    const score = chosen().layers[index].own_score;
    bar.firstChild.textContent = score.toFixed(2);
    bar.lastChild.style.height = `${Math.round(48 * score)}px`;
    bar.setAttribute('aria-label', `layer ${data.layers[index]}, score ${score.toFixed(2)}`);
    pressed(bar, index === state.layer);
  });
  byId('layer').value = state.layer;
  byId('layer').setAttribute('aria-valuetext', `layer ${layer}`);
  byId('layer-name').textContent = `${layer} of ${data.layers[data.layers.length - 1]}`;
  byId('opacity').value = state.opacity;
  byId('opacity-value').textContent = `${state.opacity} %`;
  byId('shared').checked = state.shared;
  byId('cells').checked = state.cells;
  byId('mask').checked = state.mask;
  byId('status').textContent = `${nameOf(chosen())} (query ${chosen().query}) · ${KINDS[state.kind]} · ${headName(state.head)} · layer ${layer}`;
}

function showThumbnails() {
  const buttons = byId('thumbnails').querySelectorAll('button');
  const box = chosen().layers[state.layer].box;
  KINDS.forEach((_, kind) => heads.forEach((head, column) => {
    const button = buttons[kind * heads.length + column];
    pressed(button, kind === state.kind && head === state.head);
    const context = maps.paint(button.firstChild, weightsOf(kind, head), topOf(kind, head), !state.cells, 112, false);
    const scale = button.firstChild.width / data.image.width;
    const rectangle = [box[0], box[1], box[2] - box[0], box[3] - box[1]].map((value) => value * scale);
    [['#000', 3.5], ['#ff5c86', 1.7]].forEach(([colour, line]) => {
      Object.assign(context, { strokeStyle: colour, lineWidth: line });
      context.strokeRect(...rectangle);
    });
  }));
}

// ---- steering ----

function play() {
  const stop = () => { clearInterval(playing); playing = null; byId('play').textContent = '▶'; byId('play').setAttribute('aria-label', 'Play the layers'); };
  if (playing) { stop(); return; }
  byId('play').textContent = '❚❚';
  byId('play').setAttribute('aria-label', 'Pause');
  if (state.layer === data.layers.length - 1) set({ layer: 0 });
  playing = setInterval(() => {
    if (state.layer === data.layers.length - 1) stop();
    else set({ layer: state.layer + 1 });
  }, 700);
}

function toNext(by) {
  const shown = data.detections.map((_, index) => index).filter((index) => isShown(data.detections[index]));
  set({ detection: shown[(shown.indexOf(state.detection) + by + shown.length) % shown.length] });
}

const layers = data.layers.map((_, index) => index);
const keys = {
  n: () => toNext(1),
  p: () => toNext(-1),
  '[': () => setThreshold(Math.max(data.floor, Math.round(100 * state.threshold - 5) / 100)),
  ']': () => setThreshold(Math.min(1, Math.round(100 * state.threshold + 5) / 100)),
  ArrowRight: () => set({ head: step(heads, state.head, 1) }),
  ArrowLeft: () => set({ head: step(heads, state.head, -1) }),
  ArrowUp: () => set({ layer: step(layers, state.layer, 1) }),
  ArrowDown: () => set({ layer: step(layers, state.layer, -1) }),
  s: () => set({ kind: 0 }),
  c: () => set({ kind: 1 }),
  b: () => set({ kind: 2 }),
  o: () => set({ overlay: !state.overlay }),
  m: () => set({ shared: !state.shared }),
  t: () => set({ cells: !state.cells }),
  k: () => set({ mask: !state.mask }),
  '+': () => set({ opacity: Math.min(100, state.opacity + 5), overlay: true }),
  '=': () => keys['+'](),
  '-': () => set({ opacity: Math.max(0, state.opacity - 5) }),
  '?': () => byId('help').showModal(),
  ' ': play,
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
  const onInput = event.target.matches('input');
  if (onInput && (event.key.startsWith('Arrow') || event.key === ' ')) return;
  if (event.target.matches('button') && event.key === ' ') return;
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function onPoint(event) {
  const frame = byId('stage').getBoundingClientRect();
  const x = (event.clientX - frame.left) / frame.width * data.image.width;
  const y = (event.clientY - frame.top) / frame.height * data.image.height;
  const weight = maps.sample(weightsOf(state.kind, state.head), x, y, false);
  byId('probe').textContent = `weight ${weightText(weight)} at (${Math.round(x)}, ${Math.round(y)})`;
}

function listen() {
  document.addEventListener('keydown', onKey);
  byId('stage').addEventListener('pointermove', onPoint);
  byId('stage').addEventListener('pointerleave', () => { byId('probe').textContent = 'attention weight'; });
  byId('layer').addEventListener('input', (event) => set({ layer: Number(event.target.value) }));
  byId('threshold').addEventListener('input', (event) => setThreshold(Number(event.target.value) / 100));
  byId('opacity').addEventListener('input', (event) => set({ opacity: Number(event.target.value), overlay: true }));
  byId('shared').addEventListener('change', (event) => set({ shared: event.target.checked }));
  byId('cells').addEventListener('change', (event) => set({ cells: event.target.checked }));
  byId('mask').addEventListener('change', (event) => set({ mask: event.target.checked }));
  byId('play').addEventListener('click', play);
  byId('help-button').addEventListener('click', () => byId('help').showModal());
}

async function start() {
  if (typeof DecompressionStream === 'undefined') {
    element('p', { className: 'failure', textContent: 'This page needs a browser of 2023 or newer (DecompressionStream).' }, document.body);
    return;
  }
  maps = await Maps.load(data);
  build();
  listen();
  show();
  document.body.dataset.ready = 'true';
}

start();
