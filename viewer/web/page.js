// The page around the viewer: starts it, has the field to write in, mirrors its text, keeps its settings, and
// gives it what a canvas does not get by itself: dropped files, pinches, the clipboard, the address.
'use strict';

var Module;
const fathom = (() => {
  const at = id => document.getElementById(id);
  const canvas = at('canvas'), stage = at('stage'), cover = at('cover'), form = at('write'),
        field = at('prompt'), go = at('go');
  let busy = false, running = false, address = '', last = null;

  const call = (name, types = [], values = []) => running && Module.ccall('fathom_' + name, null, types, values);
  const wake = () => call('wake');

  // Bytes into the viewer's memory for the time of a call.
  function give(name, bytes, before, after) {
    const place = Module._malloc(bytes.length || 1);
    Module.HEAPU8.set(bytes, place);
    call(name, [...before.map(() => 'number'), 'number', 'number', ...after.map(() => 'string')],
         [...before, place, bytes.length, ...after]);
    Module._free(place);
  }

  function fail(message) {
    cover.hidden = false;
    cover.textContent = message;
  }

  async function bytesOf(path) {
    const answer = await fetch(path);
    return answer.ok ? new Uint8Array(await answer.arrayBuffer()) : null;
  }

  // --- called by the viewer
  function tell(now) {
    last = now;
    cover.hidden = true;
    document.body.classList.toggle('light', !now.dark);
    form.hidden = !now.live;
    busy = now.busy;
    go.textContent = busy ? 'Stop' : 'Begin';
    const put = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
    put('mirror-text', now.text);
    put('mirror-selection', now.selection);
    put('mirror-state', now.failure || now.state);
    put('mirror-model', now.model);
    put('mirror-device', now.device);
    put('mirror-speed', now.speed ? now.speed.toFixed(1) : '');
    document.title = now.model ? `Fathom: ${now.model}` : 'Fathom';
    if (now.address && now.address !== address) {
      address = now.address;
      history.replaceState(null, '', '#' + withKey(address));
    }
    try { localStorage.setItem('fathom', JSON.stringify(now.settings)); } catch { /* none are kept */ }
  }
  const copy = text => navigator.clipboard?.writeText(text).catch(() => {});
  function save(name, bytes) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([bytes], {type: 'image/png'}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  async function wantsCjk() {
    const bytes = await bytesOf('cjk.font');
    if (bytes) give('font', bytes, [1], []);
  }

  // --- the address: what is looked at, and the server's key where it asks for one
  const parts = () => new URLSearchParams(location.hash.slice(1));
  const withKey = text => parts().has('key') ? `key=${encodeURIComponent(parts().get('key'))}&${text}` : text;
  function asked() {
    const all = parts();
    all.delete('key');
    return all.toString();
  }
  function socketUrl() {
    if (location.protocol === 'file:') return '';
    const query = parts().has('key') ? '?key=' + parts().get('key') : '';
    const path = location.pathname.replace(/[^/]*$/, 'live');
    return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${path}${query}`;
  }
  window.addEventListener('hashchange', () => {
    if (asked() !== address) call('address', ['string'], [asked()]);
  });

  // --- the field to write in. GLFW listens to the whole window's keys: those for the field stay here.
  const writes = () => document.activeElement === field || document.activeElement === go;
  function submit() {
    if (busy) return call('stop');
    call('begin');
  }
  for (const kind of ['keydown', 'keyup', 'keypress'])
    window.addEventListener(kind, event => {
      wake();
      if (!writes()) return;
      event.stopImmediatePropagation();
      const enter = event.key === 'Enter' && !event.shiftKey && !event.isComposing;
      if (kind === 'keydown' && event.key === 'Escape') canvas.focus();
      if (kind === 'keydown' && enter && document.activeElement === field) {
        event.preventDefault();
        submit();
      }
    }, true);
  field.addEventListener('input', () => call('prompt', ['string'], [field.value]));
  form.addEventListener('submit', event => {
    event.preventDefault();
    submit();
  });
  canvas.addEventListener('mousedown', () => canvas.focus());
  window.addEventListener('paste', event => {
    if (!writes()) call('paste', ['string'], [event.clipboardData.getData('text')]);
  });
  for (const kind of ['mousemove', 'mousedown', 'mouseup', 'wheel', 'touchstart', 'touchmove', 'touchend', 'focus'])
    window.addEventListener(kind, wake, {capture: true, passive: true});
  document.addEventListener('visibilitychange', () => call('hide', ['number'], [document.hidden ? 1 : 0]));

  const mouse = (kind, at) => canvas.dispatchEvent(new MouseEvent(kind, {
    clientX: at.x, clientY: at.y, bubbles: true, cancelable: true}));
  // --- the wheel, in steps; Emscripten's GLFW mixes up its units and its direction
  const turn = (x, y) => call('wheel', ['number', 'number'], [x, y]);
  for (const kind of ['wheel', 'mousewheel'])
    canvas.addEventListener(kind, event => {
      event.preventDefault();
      event.stopImmediatePropagation();
      const step = [100, 3, 1 / 80][event.deltaMode] || 100;
      mouse('mousemove', {x: event.clientX, y: event.clientY}); // it turns what is under the mouse
      if (kind === 'wheel') turn(-event.deltaX / step, -event.deltaY / step);
      wake();
    }, {capture: true, passive: false});

  // --- two fingers: together they pan, apart or together they zoom, both as a wheel does
  let fingers = null;
  const spread = touches => ({
    x: (touches[0].clientX + touches[1].clientX) / 2, y: (touches[0].clientY + touches[1].clientY) / 2,
    apart: Math.hypot(touches[0].clientX - touches[1].clientX, touches[0].clientY - touches[1].clientY)});
  canvas.addEventListener('touchstart', event => {
    if (event.touches.length !== 2) return;
    event.stopImmediatePropagation(); // the first one may be dragging
    fingers = spread(event.touches);
    mouse('mouseup', fingers);
  }, {capture: true, passive: true});
  canvas.addEventListener('touchmove', event => {
    if (event.touches.length !== 2) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const now = spread(event.touches);
    if (fingers) {
      const pinch = now.apart - fingers.apart, pan = now.y - fingers.y;
      const by = Math.abs(pinch) > Math.abs(pan) ? pinch : pan;
      mouse('mousemove', now);
      turn(0, by / 25);
    }
    fingers = now;
  }, {capture: true, passive: false});
  canvas.addEventListener('touchend', () => { fingers = null; }, true);

  // --- recordings
  async function open(file) {
    give('open', new Uint8Array(await file.arrayBuffer()), [], [file.name]);
  }
  window.addEventListener('dragover', event => event.preventDefault());
  window.addEventListener('drop', event => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) open(file);
  });

  const pixels = size => Math.max(1, Math.round(size * (window.devicePixelRatio || 1)));
  async function start() {
    running = true;
    let settings = '';
    try { settings = localStorage.getItem('fathom') || ''; } catch { /* none are kept */ }
    try {
      Module.ccall('fathom_start', null, ['string', 'string', 'string'], [socketUrl(), settings, asked()]);
    } catch (error) {
      running = false;
      return fail(`The viewer cannot start: ${error.message || 'this browser has no WebGL 2'}.`);
    }
    const font = await bytesOf('text.font').catch(() => null);
    if (font) give('font', font, [0], []);
  }
  Module = {canvas, onRuntimeInitialized: start, onAbort: () => fail('The viewer came to an unexpected end: load the page again.'),
            locateFile: name => name};
  const script = document.createElement('script');
  script.src = 'fathom.js';
  script.onerror = () => fail('The viewer could not be loaded.');
  document.body.append(script);

  return {tell, copy, save, wantsCjk, open, width: () => pixels(stage.clientWidth), height: () => pixels(stage.clientHeight),
          get last() { return last; }};
})();
