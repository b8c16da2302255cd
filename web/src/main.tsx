/** Puts the page into its document. */
import { render } from "preact";
import { App } from "./app";
import { start } from "./state";

render(<App />, document.getElementById("page")!);
void start();
