//! What the fuzz targets run: one function a target, which takes any bytes and panics when a parser
//! breaks a promise. Each is run over the seeds as a unit test too.

mod body;
mod client_hello;
mod content_coding;
mod cuts;
mod head;
mod sse;
mod ws_frame;

pub use body::framing_chunked;
pub use client_hello::client_hello;
pub use content_coding::content_coding;
pub use head::head;
pub use sse::sse;
pub use ws_frame::ws_frame;

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every seed of a target, and each with its end cut off anywhere.
    fn seeds(target: &str, run: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let seeds = std::fs::read_dir(fuzz.join("seeds").join(target)).unwrap();
        let seeds: Vec<_> =
            seeds.map(|seed| std::fs::read(seed.unwrap().path()).unwrap()).collect();
        assert!(!seeds.is_empty(), "no seeds for {target}");
        for seed in seeds {
            (0..=seed.len()).for_each(|end| run(&seed[..end]));
        }
    }

    #[test]
    fn head() {
        seeds("head", super::head);
    }

    #[test]
    fn framing_chunked() {
        seeds("framing_chunked", super::framing_chunked);
    }

    #[test]
    fn client_hello() {
        seeds("client_hello", super::client_hello);
    }

    #[test]
    fn ws_frame() {
        seeds("ws_frame", super::ws_frame);
    }

    #[test]
    fn content_coding() {
        seeds("content_coding", super::content_coding);
    }

    #[test]
    fn sse() {
        seeds("sse", super::sse);
    }
}
