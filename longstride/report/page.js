(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const kWays = {
    step: { name: 'steps', of: (run) => run.clock.step },
    bytes: { name: 'bytes', of: (run) => run.clock.bytes },
    hours: { name: 'hours of training', of: (run) => run.clock.seconds.map((s) => s / 3600) },
  };
  const kDashes = ['', '7 3', '2 3', '9 3 2 3'];
  const kRough = /bits|norm|second/;  // the curves that smoothing helps
  const kMargin = { left: 58, right: 14, top: 10, bottom: 36 };
  const kSmooth = [0, 0.8, 0.95];
  // What the reader has chosen; kept in the address, so that a page that loads itself again keeps it.
  const state = { x: 'step', log: false, whole: false, smooth: 0, zoom: null, hidden: new Set() };

  function recall() {
    const given = new URLSearchParams(location.hash.slice(1));
    if (kWays[given.get('x')]) state.x = given.get('x');
    state.log = given.get('log') === '1';
    state.whole = given.get('whole') === '1';
    if (kSmooth.includes(Number(given.get('smooth')))) state.smooth = Number(given.get('smooth'));
    const zoom = (given.get('zoom') || '').split('_').map(Number);
    if (zoom.length === 2 && zoom[0] < zoom[1]) state.zoom = zoom;
    for (const index of (given.get('hidden') || '').split('.'))
      if (index !== '' && data.runs[Number(index)]) state.hidden.add(Number(index));
  }
  function remember() {
    const kept = new URLSearchParams();
    if (state.x !== 'step') kept.set('x', state.x);
    if (state.log) kept.set('log', '1');
    if (state.whole) kept.set('whole', '1');
    if (state.smooth) kept.set('smooth', String(state.smooth));
    if (state.zoom) kept.set('zoom', state.zoom.join('_'));
    if (state.hidden.size) kept.set('hidden', [...state.hidden].join('.'));
    history.replaceState(null, '', '#' + kept);
  }

  // ---- numbers ----

  function short(value) {
    if (!Number.isFinite(value)) return 'not finite';
    const size = Math.abs(value);
    if (size === 0) return '0';
    for (const [unit, letter] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e4, 'k']])
      if (size >= unit) return trimmed((value / (letter === 'k' ? 1e3 : unit)).toPrecision(3)) + letter;
    return size < 1e-3 ? value.toExponential(2).replace('.00', '') : trimmed(value.toPrecision(4));
  }
  const trimmed = (text) => (text.includes('.') && !text.includes('e') ? text.replace(/\.?0+$/, '') : text);
  function shown(value, unit) {
    if (unit === 'memory') {
      for (const [size, name] of [[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']])
        if (value >= size) return trimmed((value / size).toPrecision(3)) + ' ' + name;
      return short(value) + ' B';
    }
    return unit === 'bits' ? value.toFixed(4) : short(value);
  }
  function ticks(low, high, count) {
    const rough = (high - low) / Math.max(1, count);
    if (!(rough > 0)) return [low];
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) found.push(i * step);
    return found;
  }
  function logTicks(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power)
      for (const m of [1, 2, 5]) if (m * 10 ** power >= low && m * 10 ** power <= high) found.push(m * 10 ** power);
    return found.length > 7 ? found.filter((v) => Math.abs(Math.log10(v) % 1) < 1e-9) : found;
  }

  // The value of `ys` at `x`, between the samples of `xs`.
  function between(xs, ys, x) {
    if (!xs.length) return NaN;
    if (x <= xs[0]) return xs[0] > 0 ? (ys[0] * x) / xs[0] : ys[0];
    let low = 0, high = xs.length - 1;
    if (x >= xs[high]) return ys[high];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] <= x) low = middle; else high = middle;
    }
    return ys[low] + ((ys[high] - ys[low]) * (x - xs[low])) / (xs[high] - xs[low]);
  }
  function xOf(run, steps) {
    if (state.x === 'step') return steps;
    const values = kWays[state.x].of(run);
    return steps.map((step) => between(run.clock.step, values, step));
  }
  function smoothed(ys) {
    let mean = null, weight = 0;
    return ys.map((y) => {
      if (y === null) return null;
      mean = state.smooth * (mean === null ? 0 : mean) + (1 - state.smooth) * y;
      weight = state.smooth * weight + (1 - state.smooth);
      return mean / weight;
    });
  }

  // Each value's mean with `half` values on both sides; fewer at the ends.
  function centred(ys, half) {
    const sums = [0], counts = [0];
    ys.forEach((y, i) => { sums.push(sums[i] + (y || 0)); counts.push(counts[i] + (y === null ? 0 : 1)); });
    return ys.map((y, i) => {
      const reach = Math.min(half, i, ys.length - 1 - i), from = i - reach, to = i + reach + 1;
      return y === null ? null : (sums[to] - sums[from]) / (counts[to] - counts[from]);
    });
  }

  // ---- drawing ----

  const kSvg = 'http://www.w3.org/2000/svg';
  function element(parent, name, attributes, text) {
    const made = document.createElementNS(kSvg, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }
  const colour = (index) => `var(--c${index % 8})`;
  const dash = (index) => kDashes[Math.floor(index / 8) % kDashes.length];
  // A place on the axis in words.
  const placeName = (x) => `${state.x === 'step' ? Math.round(x) : short(x)} ${kWays[state.x].name}`;
  function key(index) {
    const svg = document.createElementNS(kSvg, 'svg');
    svg.setAttribute('class', 'key');
    svg.setAttribute('viewBox', '0 0 26 10');
    svg.setAttribute('aria-hidden', 'true');
    element(svg, 'line', { x1: 1, x2: 25, y1: 5, y2: 5, style: `stroke:${colour(index)}`, 'stroke-dasharray': dash(index) });
    return svg;
  }

  class Chart {
    constructor(figure) {
      this.spec = data.charts[Number(figure.dataset.chart)];
      this.plot = figure.querySelector('.plot');
      this.tip = document.createElement('div');
      this.tip.className = 'tip';
      this.tip.hidden = true;
      this.svg = element(this.plot, 'svg', {
        tabindex: 0, role: 'slider', 'aria-label': this.spec.title + ', read off at a position; left and right move it',
        'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 0,
      });
      this.plot.append(this.tip);
      this.at = null;
      this.listen();
      const table = figure.querySelector('details');
      table.addEventListener('toggle', () => table.open && this.fillTable(table.querySelector('.scroll')));
      new ResizeObserver(() => this.plot.clientWidth !== this.width && this.draw()).observe(this.plot);
    }

    lines() {
      const lines = [];
      data.runs.forEach((run, index) => {
        if (state.hidden.has(index)) return;
        for (const name of this.spec.names) {
          const curve = run.curves[name];
          if (!curve) continue;
          const held = name.startsWith('validation/');
          const x = xOf(run, curve.x);
          lines.push({ run, index, held, name, x, y: curve.y, smooth: !held && state.smooth && kRough.test(name) ? smoothed(curve.y) : null });
        }
      });
      return lines;
    }

    ranges(lines) {
      let low = Infinity, high = -Infinity;
      for (const line of lines)
        for (const x of line.x) if (Number.isFinite(x) && (!state.log || x > 0)) low = Math.min(low, x), high = Math.max(high, x);
      if (low > high) return null;
      if (!state.log) low = Math.min(low, 0);
      if (state.zoom) [low, high] = state.zoom;
      if (low === high) high = low + 1;
      // The steep beginning would flatten all that follows.
      const from = state.zoom || state.whole || state.log || !this.spec.cut ? low : low + 0.06 * (high - low);
      let bottom = Infinity, top = -Infinity;
      for (const line of lines)
        line.x.forEach((x, i) => {
          const y = line.y[i];
          if (y === null || x > high || (x < from && line.x.length > 2)) return;
          bottom = Math.min(bottom, y), top = Math.max(top, y);
        });
      if (bottom > top) return null;
      if (this.spec.zero) bottom = Math.min(bottom, 0);
      const room = (top - bottom || Math.abs(top) || 1) * 0.06;
      return { x: [low, high], y: [this.spec.zero && bottom === 0 ? 0 : bottom - room, top + room] };
    }

    draw() {
      const width = (this.width = Math.max(240, this.plot.clientWidth)), height = this.spec.wide ? Math.min(380, 180 + width * 0.22) : 210;
      this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
      this.svg.replaceChildren();
      const lines = (this.current = this.lines()), range = (this.range = this.ranges(lines));
      if (!range) {
        element(this.svg, 'text', { x: width / 2, y: height / 2, 'text-anchor': 'middle' }, 'nothing to show');
        return;
      }
      const left = kMargin.left, right = width - kMargin.right, top = kMargin.top, bottom = height - kMargin.bottom;
      const map = state.log ? Math.log10 : (v) => v;
      const [x0, x1] = range.x.map(map), [y0, y1] = range.y;
      this.toX = (x) => left + ((map(x) - x0) / (x1 - x0)) * (right - left);
      this.fromX = (px) => {
        const value = x0 + ((px - left) / (right - left)) * (x1 - x0);
        return state.log ? 10 ** value : value;
      };
      const toY = (y) => bottom - ((y - y0) / (y1 - y0)) * (bottom - top);
      // Memory has round numbers in units of 1024.
      const unit = this.spec.unit === 'memory' ? 1024 ** Math.floor(Math.log2(Math.max(1, y1)) / 10) : 1;
      for (const y of ticks(y0 / unit, y1 / unit, 5).map((v) => v * unit)) {
        element(this.svg, 'line', { class: 'axis', x1: left, x2: right, y1: toY(y), y2: toY(y) });
        const label = this.spec.unit === 'bits' ? trimmed(y.toFixed(3)) : shown(y, this.spec.unit);
        element(this.svg, 'text', { x: left - 7, y: toY(y) + 4, 'text-anchor': 'end' }, label);
      }
      for (const x of state.log ? logTicks(...range.x) : ticks(range.x[0], range.x[1], width / 130)) {
        element(this.svg, 'line', { class: 'axis', x1: this.toX(x), x2: this.toX(x), y1: bottom, y2: bottom + 4 });
        const atEdge = this.toX(x) > right - 20;
        element(this.svg, 'text', { x: atEdge ? width - 2 : this.toX(x), y: bottom + 17, 'text-anchor': atEdge ? 'end' : 'middle' }, short(x));
      }
      element(this.svg, 'text', { x: right, y: height - 4, 'text-anchor': 'end' }, kWays[state.x].name);
      const id = 'clip' + this.spec.title.replace(/\W/g, '');
      element(element(this.svg, 'clipPath', { id }), 'rect', { x: left, y: top - 4, width: right - left, height: bottom - top + 4 });
      const inside = element(this.svg, 'g', { 'clip-path': `url(#${id})` });
      for (const line of lines) {
        const style = `stroke:${colour(line.index)}`;
        const path = (ys, kind) => {
          let text = '', pen = 'M';
          line.x.forEach((x, i) => {
            if (ys[i] === null || !Number.isFinite(x) || (state.log && x <= 0)) { pen = 'M'; return; }
            text += `${pen}${this.toX(x).toFixed(1)} ${toY(ys[i]).toFixed(1)}`;
            pen = 'L';
          });
          element(inside, 'path', { class: kind, d: text, style, 'stroke-dasharray': dash(line.index) });
        };
        const behind = !line.held && lines.some((l) => l.held && l.index === line.index);
        // A noisy curve of more values than there is room for would be a solid block.
        const inView = line.x.filter((x) => x >= range.x[0] && x <= range.x[1]).length;
        const crowded = !line.smooth && kRough.test(line.name) && inView > (right - left) / 2;
        const mean = line.smooth || (crowded ? centred(line.y, Math.ceil((8 * inView) / (right - left))) : null);
        if (mean) path(line.y, lines.length > 4 || line.smooth ? 'raw faint' : 'raw');
        path(mean || line.y, line.held ? 'held' : mean && behind ? 'mean' : behind ? 'raw' : '');
        if (line.x.length <= Math.min(40, width / 22) && (line.held || line.x.length === 1))
          line.x.forEach((x, i) => {
            if (line.y[i] !== null && Number.isFinite(x) && (!state.log || x > 0))
              element(inside, 'circle', { cx: this.toX(x), cy: toY(line.y[i]), r: line.held ? 3.2 : 2.5, style: `fill:${colour(line.index)}` });
          });
      }
      this.cursor = element(this.svg, 'line', { class: 'cursor', y1: top, y2: bottom, visibility: 'hidden' });
      this.box = element(this.svg, 'rect', { class: 'chosen', y: top, height: bottom - top, width: 0 });
      if (!this.tip.hidden) this.read(this.at, document.activeElement === this.svg);
    }

    // The values at `part` of the range of x.
    read(part, spoken) {
      if (!this.range) return;
      this.at = Math.min(1, Math.max(0, part));
      const right = this.width - kMargin.right, px = kMargin.left + this.at * (right - kMargin.left), x = this.fromX(px);
      this.cursor.setAttribute('x1', px);
      this.cursor.setAttribute('x2', px);
      this.cursor.setAttribute('visibility', 'visible');
      const rows = this.current.map((line) => {
        let best = -1;
        line.x.forEach((v, i) => { if (line.y[i] !== null && (best < 0 || Math.abs(v - x) <= Math.abs(line.x[best] - x))) best = i; });
        return best < 0 ? null : { line, value: shown((line.smooth || line.y)[best], this.spec.unit) };
      }).filter(Boolean);
      const label = (line) => this.spec.labels[line.name] || line.name;
      this.fillTip(x, rows, label);
      // Beside the cursor and within the chart, or below one that it would hide.
      const wide = this.tip.offsetWidth;
      this.tip.style.top = wide > 0.6 * this.width ? `${this.svg.clientHeight}px` : '';
      const beside = this.at > 0.5 ? px - 10 - wide : px + 10;
      this.tip.style.left = `${Math.max(0, Math.min(beside, this.width - wide))}px`;
      if (!spoken) return;
      this.svg.setAttribute('aria-valuenow', Math.round(this.at * 100));
      const kind = (line) => (this.spec.names.length > 1 ? label(line) + ' ' : '');
      this.svg.setAttribute('aria-valuetext',
        `${placeName(x)}: ` + rows.map(({ line, value }) => `${kind(line)}${line.run.name} ${value}`).join(', '));
    }
    // A line for each run, a column for each of its curves.
    fillTip(x, rows, label) {
      const kinds = [...new Set(rows.map(({ line }) => label(line)))], cells = [];
      const cell = (text, name) => {
        const made = document.createElement('span');
        made.textContent = text;
        made.className = name;
        cells.push(made);
        return made;
      };
      cell(placeName(x), 'head');
      for (const kind of kinds) cell(this.spec.names.length > 1 ? kind : '', 'value soft');
      for (const index of new Set(rows.map(({ line }) => line.index))) {
        const own = rows.filter(({ line }) => line.index === index);
        cell('', 'swatch').append(key(index));
        cell(own[0].line.run.name, 'name');
        for (const kind of kinds) cell((own.find(({ line }) => label(line) === kind) || { value: '' }).value, 'value');
      }
      this.tip.style.gridTemplateColumns = `auto minmax(0, 1fr) repeat(${Math.max(1, kinds.length)}, auto)`;
      this.tip.replaceChildren(...cells);
      this.tip.hidden = false;
    }
    leave() {
      this.tip.hidden = true;
      if (this.cursor) this.cursor.setAttribute('visibility', 'hidden');
    }

    forget() {
      this.at = null;
      this.leave();
    }

    listen() {
      const part = (event) => {
        const box = this.svg.getBoundingClientRect();
        return (event.clientX - box.left - kMargin.left) / (box.width - kMargin.left - kMargin.right);
      };
      let begun = null;
      this.svg.addEventListener('pointerdown', (event) => { begun = part(event); });
      this.svg.addEventListener('pointermove', (event) => {
        this.read(part(event), false);
        if (begun === null || !event.buttons || !this.range) return;
        const scale = this.width - kMargin.left - kMargin.right;
        const ends = [begun, this.at].map((p) => kMargin.left + Math.min(1, Math.max(0, p)) * scale).sort((a, b) => a - b);
        this.box.setAttribute('x', ends[0]);
        this.box.setAttribute('width', ends[1] - ends[0]);
      });
      this.svg.addEventListener('pointerup', () => {
        const width = Number(this.box && this.box.getAttribute('width')), x = Number(this.box && this.box.getAttribute('x'));
        begun = null;
        if (width > 8) zoomTo([this.fromX(x), this.fromX(x + width)]);
      });
      this.svg.addEventListener('pointerleave', () => document.activeElement !== this.svg && this.forget());
      this.svg.addEventListener('dblclick', () => zoomTo(null));
      this.svg.addEventListener('focus', () => this.svg.matches(':focus-visible') && this.read(this.at === null ? 1 : this.at, true));
      this.svg.addEventListener('blur', () => this.leave());
      this.svg.addEventListener('keydown', (event) => {
        const at = this.at === null ? 1 : this.at, by = event.shiftKey ? 0.1 : 0.01;
        const moves = { ArrowLeft: at - by, ArrowRight: at + by, ArrowDown: at - by, ArrowUp: at + by, PageDown: at - 0.1,
          PageUp: at + 0.1, Home: 0, End: 1 };
        if (event.key in moves) this.read(moves[event.key], true);
        else if ((event.key === '+' || event.key === '-') && this.range) this.zoomBy(event.key === '+' ? 0.5 : 2);
        else if (event.key === 'Escape') zoomTo(null);
        else return;
        event.preventDefault();
      });
    }
    zoomBy(factor) {
      const scale = this.width - kMargin.left - kMargin.right, centre = this.at === null ? 0.5 : this.at;
      const ends = [centre - centre * factor, centre + (1 - centre) * factor].map((p) => this.fromX(kMargin.left + p * scale));
      if (ends[1] - ends[0] > 0) zoomTo([state.log ? ends[0] : Math.max(0, ends[0]), ends[1]]);
    }

    fillTable(place) {
      const lines = this.current || [], range = this.range, table = document.createElement('table');
      const caption = table.createCaption();
      caption.className = 'soft';
      caption.textContent = this.spec.title;
      const row = (cells, isHead) => {
        const tr = document.createElement('tr');
        cells.forEach((text, i) => {
          const cell = document.createElement(i && !isHead ? 'td' : 'th');
          if (cell.tagName === 'TH') cell.scope = isHead ? 'col' : 'row';
          cell.className = 'number';
          cell.textContent = text;
          tr.append(cell);
        });
        return tr;
      };
      const head = table.createTHead(), body = table.createTBody();
      head.append(row([kWays[state.x].name, ...lines.map((l) => (this.spec.names.length > 1 ? this.spec.labels[l.name] + ' ' : '') + l.run.name)], true));
      for (let i = 0; range && i <= 12; ++i) {
        const x = range.x[0] + ((range.x[1] - range.x[0]) * i) / 12;
        body.append(row([short(x), ...lines.map((line) => {
          if (!line.x.length || x > line.x[line.x.length - 1] * 1.0001) return '';
          let best = -1;
          line.x.forEach((v, j) => { if (line.y[j] !== null && (best < 0 || Math.abs(v - x) <= Math.abs(line.x[best] - x))) best = j; });
          return best < 0 ? '' : shown(line.y[best], this.spec.unit);
        })]));
      }
      place.replaceChildren(table);
    }
  }

  // ---- the page ----

  let charts = [];
  const reset = document.getElementById('reset');
  function redraw() {
    remember();
    reset.disabled = !state.zoom;
    for (const chart of charts) {
      chart.draw();
      const table = chart.plot.parentElement.querySelector('details');
      if (table.open) chart.fillTable(table.querySelector('.scroll'));
    }
  }
  function zoomTo(range) {
    state.zoom = range;
    redraw();
  }

  recall();
  place.open();
  document.querySelectorAll('[data-key]').forEach((place) => place.append(key(Number(place.dataset.key))));
  for (const box of document.querySelectorAll('input[data-run]')) {
    box.checked = !state.hidden.has(Number(box.dataset.run));
    box.disabled = false;
    box.addEventListener('change', () => {
      state.hidden[box.checked ? 'delete' : 'add'](Number(box.dataset.run));
      redraw();
    });
  }
  for (const button of document.querySelectorAll('input[name="x"]')) {
    button.checked = button.value === state.x;
    button.addEventListener('change', () => {
      state.x = button.value;
      state.zoom = null;
      redraw();
    });
  }
  for (const name of ['log', 'whole']) {
    const box = document.getElementById(name);
    box.checked = state[name];
    box.addEventListener('change', () => {
      state[name] = box.checked;
      if (name === 'log') state.zoom = null;
      redraw();
    });
  }
  const smooth = document.getElementById('smooth');
  smooth.value = String(state.smooth);
  smooth.addEventListener('change', () => { state.smooth = Number(smooth.value); redraw(); });
  reset.addEventListener('click', () => zoomTo(null));
  document.getElementById('controls').hidden = false;
  charts = [...document.querySelectorAll('figure[data-chart]')].map((figure) => new Chart(figure));
  redraw();

  place.back(charts);
  const pause = document.getElementById('pause');
  if (data.refresh > 0 && pause) {
    place.watch(data.refresh, () => pause.checked, () => {
      place.keep(charts);
      location.reload();
    });
    // Whoever wrote the page may have been killed.
    const age = document.getElementById('age'), late = Math.max(60, 3 * data.refresh);
    const tell = () => {
      const seconds = Date.now() / 1000 - data.now;
      age.textContent = seconds > late ? ` (${Math.round(seconds / 60)} min ago)` : '';
    };
    tell();
    setInterval(tell, 5000);
  }
})();
