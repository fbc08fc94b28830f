// A page that is opened as a file may start no worker, which the search needs: an invisible frame takes its place.
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.body.appendChild(document.createElement("iframe"));
    frame.hidden = true;
    this.frame = frame.contentWindow;
    this.frame.document.write(`<body><script>
      const load = url => new Promise(done => {
        const script = document.createElement("script");
        script.src = url; script.onload = done; document.body.append(script);
      });
      importScripts = (...urls) => urls.reduce((before, url) => before.then(() => load(url)), Promise.resolve());
      postMessage = data => parent.postMessage(data, "*");
    <\/script><script src="${url}"><\/script></body>`);
    this.frame.document.close();
    this.ready = new Promise(done => this.frame.addEventListener("load", done));
    addEventListener("message", event => {
      if (event.source !== this.frame) return;
      this.dispatchEvent(new MessageEvent("message", {data: event.data}));
      this.onmessage?.(event);
    });
  }
  postMessage(data) {
    this.ready.then(() => this.frame.dispatchEvent(new MessageEvent("message", {data})));
  }
  terminate() {}
}
if (location.protocol === "file:") Worker = FrameWorker;
