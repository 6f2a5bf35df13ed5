//! Java's `HttpClient` through the gate. It reads no variable: its connections are caught, and its
//! trust store is laid over. It offers h2 before http/1.1, and h2c in clear text: that offer speaks
//! of one connection, and what came of it could not be read, so it ends at the gate.

use std::io::{BufRead, BufReader};

use crate::support::bench::{Bench, Started};
use crate::support::content::Noise;
use crate::support::journal::compare;
use crate::support::tools::need;

/// What `java FILE` compiles and runs: `BODY` as a program.
fn program(body: &str) -> String {
    format!(
        "import java.io.*;
         import java.net.URI;
         import java.net.http.*;
         import java.net.http.HttpRequest.BodyPublishers;
         import java.net.http.HttpResponse.BodyHandlers;
         import java.nio.file.Path;
         public class Client {{
             static HttpClient client = HttpClient.newHttpClient();
             static HttpRequest.Builder to(String rest) {{
                 return HttpRequest.newBuilder(URI.create(rest));
             }}
             static void same(Object got, Object wanted) {{
                 if (!got.equals(wanted)) throw new RuntimeException(got + \" is not \" + wanted);
             }}
             public static void main(String[] args) throws Exception {{ {body} }}
         }}"
    )
}

/// Writes the program; `java` starts it from its source.
fn java(bench: &Bench, body: &str) -> [&'static str; 3] {
    need("javac", "default-jdk-headless");
    std::fs::write(bench.work().join("Client.java"), program(body)).unwrap();
    // No other JIT: it is started once and does little.
    [need("java", "default-jdk-headless"), "-XX:TieredStopAtLevel=1", "Client.java"]
}

#[test]
fn requests_of_every_kind() {
    const BODY: &str = r#"
        for (int n = 0; n < 2; n++) {
            var hello = client.send(to("https://java.test/?n=" + n).build(), BodyHandlers.ofString());
            same(hello.body(), "hello from the origin\n");
            same(hello.version(), HttpClient.Version.HTTP_1_1);
        }
        var post = to("https://java.test/echo?text").POST(BodyPublishers.ofString("grün")).build();
        same(client.send(post, BodyHandlers.ofString()).body(), "grün");
        var pieces = BodyPublishers.ofInputStream(() -> {
            try { return new FileInputStream("up"); } catch (IOException e) { throw new UncheckedIOException(e); }
        });
        var upload = to("https://java.test/echo?upload").POST(pieces).build();
        client.send(upload, BodyHandlers.ofFile(Path.of("back")));
        var download = to("https://java.test/bytes?n=3000000&seed=4&frame=chunked").build();
        client.send(download, BodyHandlers.ofFile(Path.of("down")));
        var clear = client.send(to("http://java.test/?clear").build(), BodyHandlers.ofString());
        same(clear.body(), "hello from the origin\n");
        var put = to("http://java.test/echo?clear").PUT(BodyPublishers.ofString("grün")).build();
        same(client.send(put, BodyHandlers.ofString()).body(), "grün");
    "#;
    let bench = Bench::new();
    let up = Noise::bytes(5, 2_000_000);
    std::fs::write(bench.work().join("up"), &up).unwrap();
    bench.run(&java(&bench, BODY)).ok();
    let file = |name| std::fs::read(bench.work().join(name)).unwrap();
    assert!(file("down") == Noise::bytes(4, 3_000_000), "the download came changed");
    assert!(file("back") == up, "the upload came back changed");
    let upload = bench.origin.only("/echo?upload");
    assert_eq!(upload.field("transfer-encoding"), Some("chunked"));
    let clear = bench.origin.only("/?clear");
    assert_eq!((clear.field("upgrade"), clear.field("http2-settings")), (None, None));
    let recorded = bench.journal().only("/?clear").request["head"]["fields"].to_string();
    assert!(recorded.contains("[\"Upgrade\",\"h2c\"]"), "{recorded}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 7);
}

/// Without a namespace Java has to be told of proxy and trust store, by options.
#[test]
fn permissive_mode_by_options() {
    const BODY: &str = r#"
        var post = to("https://java.test/echo?options").POST(BodyPublishers.ofString("grün")).build();
        same(client.send(post, BodyHandlers.ofString()).body(), "grün");
    "#;
    let bench = Bench::new();
    let argv = java(&bench, BODY);
    bench.run_with(&["--mode", "permissive"], &argv).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// Each event reaches the program before the origin sends the next.
#[test]
fn events_one_by_one() {
    const BODY: &str = r#"
        var events = to("https://java.test/sse?n=8&steps=seen").build();
        client.send(events, BodyHandlers.ofLines()).body().forEach(System.out::println);
    "#;
    let bench = Bench::new();
    let argv = java(&bench, BODY);
    let mut run = Started::with_stdout_left(bench.run_command(&[], &argv));
    let mut lines = BufReader::new(run.child.stdout.take().expect("a pipe")).lines();
    for n in 0..8 {
        let expected = format!("data: {{\"n\":{n}}}");
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("data:"));
        assert_eq!(found, Some(expected));
        bench.origin.release("seen", 1);
    }
    run.finish().ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}
