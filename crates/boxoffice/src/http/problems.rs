//! The 404 and 405 of unknown routes, and the list of all problem codes at `/docs/problems`, which each problem's `type`
//! links to. Pure.

use axum::{
    http::{Method, StatusCode, Uri},
    response::Html,
};
use web::Problem;

/// Each code with its status and meaning. Codes are stable: programs decide by them.
pub const TABLE: &str = include_str!("problems.md");

/// 404 for a path that no route has.
pub async fn no_such_route(uri: Uri) -> Problem {
    let detail = format_args!("no route has the path {}", uri.path());
    Problem::not_found("NOT_FOUND", detail)
}

/// 405 for a method that the route does not accept.
pub async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not accept {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
}

/// The meaning of each problem code; a problem's `type` links here.
#[utoipa::path(get, path = "/docs/problems", tag = "operations",
    responses((status = 200, description = "every code", body = String, content_type = "text/html")))]
pub async fn page() -> Html<String> {
    let mut html = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Boxoffice: problems</title>\
         <style>body{font:16px/1.5 system-ui;max-width:48rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
         dt{font-weight:600;margin-top:1rem}:target{text-decoration:underline}</style><h1>Problems</h1><dl>",
    );
    for row in TABLE.lines().skip(2) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, status, code, meaning, _] = cells[..] else {
            unreachable!("each row has three cells");
        };
        let code = code.trim_matches('`');
        let anchor = code.to_lowercase().replace('_', "-");
        html.push_str(&format!(
            "<dt id={anchor}><code>{code}</code> ({status})<dd>{meaning}"
        ));
    }
    html.push_str("</dl></html>");
    Html(html)
}
