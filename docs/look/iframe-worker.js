// Browsers start no worker from disk. There the search's script runs in a hidden frame that looks like one.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    #heard;

    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      this.#heard = new Promise((loaded) => script.addEventListener("load", () => loaded(inside)));
      script.src = url;
      inside.document.body.append(script);
    }

    postMessage(data) {
      this.#heard.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
