//! Nothing is ignored in silence, and what is wrong is said with its place.

use mesh_tower::istio::{self, Cause, Severity, Unsupported};

use super::{refused, rule, service};

/// Every field that is carried out, each on a line of its own.
const FULL: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: rule
  annotations: {anything: goes}
spec:
  host: shop
  exportTo: [\"*\"]
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 100
        connectTimeout: 1s
        idleTimeout: 1m
        maxConnectionDuration: 1h
        tcpKeepalive:
          probes: 3
          time: 60s
          interval: 10s
      http:
        http1MaxPendingRequests: 1
        http2MaxRequests: 1
        maxRequestsPerConnection: 1
        maxRetries: 1
        idleTimeout: 1m
        h2UpgradePolicy: UPGRADE
        useClientProtocol: false
        maxConcurrentStreams: 100
        http2KeepAlive:
          interval: 30s
          timeout: 1s
    outlierDetection:
      consecutive5xxErrors: 3
      consecutiveGatewayErrors: 2
      splitExternalLocalOriginErrors: true
      consecutiveLocalOriginFailures: 3
      interval: 10s
      baseEjectionTime: 30s
      maxEjectionPercent: 100
      minHealthPercent: 30
    loadBalancer:
      simple: ROUND_ROBIN
      warmup:
        duration: 60s
        minimumPercent: 5
        aggression: 1.5
    tls:
      mode: MUTUAL
      clientCertificate: /etc/tls.crt
      privateKey: /etc/tls.key
      caCertificates: /etc/ca.crt
      subjectAltNames: [shop.example]
      sni: shop.example
      insecureSkipVerify: false
    retryBudget:
      percent: 20
      minRetryConcurrency: 3
    portLevelSettings:
      - port:
          number: 8080
        loadBalancer:
          consistentHash:
            httpCookie:
              name: user
              path: /cart
              ttl: 60s
            maglev:
              tableSize: 65537
      - port:
          number: 8081
        loadBalancer:
          warmupDurationSecs: 30s
      - port:
          number: 8082
        loadBalancer:
          consistentHash:
            httpHeaderName: x-user
            ringHash:
              minimumRingSize: 1024
      - port:
          number: 8083
        loadBalancer:
          consistentHash:
            useSourceIp: true
            minimumRingSize: 4096
      - port:
          number: 8084
        loadBalancer:
          consistentHash:
            httpQueryParameterName: id
  subsets:
    - name: v1
      labels: {version: v1}
      trafficPolicy:
        loadBalancer:
          simple: LEAST_REQUEST
status: {anything: goes}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: service}
spec:
  hosts:
    - shop
  gateways: [mesh]
  http:
    - name: main
      timeout: 5s
      retries:
        attempts: 2
        perTryTimeout: 1s
        retryOn: 5xx
        backoff: 25ms
        retryIgnorePreviousHosts: true
      route:
        - weight: 90
          destination:
            host: shop
            subset: v1
            port:
              number: 8080
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: peers}
spec:
  selector:
    matchLabels:
      app: shop
  mtls:
    mode: STRICT
  portLevelMtls:
    8080:
      mode: DISABLE
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: policy
spec:
  selector:
    matchLabels:
      app: shop
  action: ALLOW
  rules:
    - from:
        - source:
            principals: [cluster.local/ns/a/sa/b]
            notPrincipals: [\"*/sa/c\"]
            requestPrincipals: [\"*\"]
            notRequestPrincipals: [a/b]
            namespaces: [a]
            notNamespaces: [b]
            trustDomains: [cluster.local]
            notTrustDomains: [\"*.example\"]
            ipBlocks: [10.0.0.0/8]
            notIpBlocks: [10.0.0.1]
            remoteIpBlocks: [\"2001:db8::/32\"]
            notRemoteIpBlocks: [\"::1\"]
        - source:
            serviceAccounts: [a/b, c]
            notServiceAccounts: [d]
      to:
        - operation:
            hosts: [\"*.shop\"]
            notHosts: [admin.shop]
            ports: [\"8080\"]
            notPorts: [\"8081\"]
            methods: [GET]
            notMethods: [HEAD]
            paths: [\"/items/{*}\"]
            notPaths: [\"/items/old*\"]
      when:
        - key: request.headers[x-stage]
          values: [\"dev*\"]
          notValues: [dev-old]
";

/// Paths that are not judged, whatever stands there.
const FREE: [&str; 3] = ["anything", "version: v1", "app: shop"];

fn lines_with_a_field() -> impl Iterator<Item = (usize, &'static str)> {
    FULL.lines().enumerate().filter(|(_, line)| line.contains(": ") || line.ends_with(':'))
}

fn replace_line(index: usize, with: &str) -> String {
    let lines: Vec<_> = FULL.lines().collect();
    [&lines[..index], &[with], &lines[index + 1..]].concat().join("\n")
}

/// Every field, renamed in turn: `report` must say so, on its line. Otherwise the line is returned.
fn first_field_that_is_ignored(reports_on: impl Fn(&str, u64) -> bool) -> Option<String> {
    lines_with_a_field()
        .filter(|(_, line)| !FREE.iter().any(|free| line.contains(free)))
        .find(|(index, line)| {
            let (name, rest) = line.split_once(':').unwrap();
            let renamed = replace_line(*index, &format!("{name}Zz:{rest}"));
            // A document without a kind or version is refused as a whole.
            let line = if name == "apiVersion" || name == "kind" { 0 } else { *index as u64 + 1 };
            !reports_on(&renamed, line)
        })
        .map(|(_, line)| line.to_owned())
}

fn reports_on(text: &str, line: u64, ignoring: &str) -> bool {
    let Err(errors) = istio::read(text, "full.yaml", Unsupported::Error) else { return false };
    let mut problems = errors.problems().iter().filter(|problem| {
        problem.severity() == Severity::Error
            && (ignoring.is_empty() || !problem.path().contains(ignoring))
    });
    problems.any(|problem| line == 0 || problem.line() == Some(line))
}

#[test]
fn the_full_document_is_read() {
    let documents = istio::read(FULL, "full.yaml", Unsupported::Error).unwrap();
    assert_eq!(documents.warnings(), []);
    assert_eq!(documents.with_client_tls().upstreams().unwrap().len(), 1);
}

#[test]
fn every_field_that_is_not_known_is_reported_on_its_line() {
    assert_eq!(first_field_that_is_ignored(|text, line| reports_on(text, line, "")), None);
    // A reader that skips what it does not know in one block is caught.
    let careless =
        first_field_that_is_ignored(|text, line| reports_on(text, line, "outlierDetection."));
    assert_eq!(careless.as_deref(), Some("      consecutive5xxErrors: 3"));
}

#[test]
fn every_value_of_a_wrong_type_is_reported_on_its_line() {
    for (index, line) in lines_with_a_field().filter(|(_, line)| !line.contains("anything")) {
        let (name, value) = line.split_once(':').unwrap();
        // A mapping is put where a value should be, and a value where a mapping or list should be.
        let wrong = match value.trim() {
            "" => continue,
            value if value.starts_with(['{', '[']) => "7",
            _ => "{a: b}",
        };
        let text = replace_line(index, &format!("{name}: {wrong}"));
        let line_number = if name == "kind" || name == "apiVersion" { 0 } else { index as u64 + 1 };
        assert!(reports_on(&text, line_number, ""), "{line}");
    }
}

#[test]
fn what_istio_has_and_this_crate_has_not() {
    let policy = |block: &str| rule(&format!("trafficPolicy: {{{block}}}"));
    let route = |rest: &str| service(&format!("route: [{{destination: {{host: shop}}}}], {rest}"));
    let table = [
        (rule("workloadSelector: {}"), "spec.workloadSelector"),
        (rule("exportTo: [\".\"]"), "spec.exportTo[0]"),
        (
            policy("portLevelSettings: [{port: {number: 80}, retryBudget: {}}]"),
            "spec.trafficPolicy.portLevelSettings[0].retryBudget",
        ),
        (policy("tunnel: {}"), "spec.trafficPolicy.tunnel"),
        (policy("proxyProtocol: {}"), "spec.trafficPolicy.proxyProtocol"),
        (policy("loadBalancer: {simple: PASSTHROUGH}"), "spec.trafficPolicy.loadBalancer.simple"),
        (
            policy("loadBalancer: {consistentHash: {httpCookie: {name: a, attributes: []}}}"),
            "spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.attributes",
        ),
        (
            policy("loadBalancer: {localityLbSetting: {weights: []}}"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.weights",
        ),
        (route("delegate: {}"), "spec.http[0].delegate"),
        (route("corsPolicy: {}"), "spec.http[0].corsPolicy"),
        (
            route("retries: {attempts: 1, retryOn: \"5xx,sometimes\"}"),
            "spec.http[0].retries.retryOn",
        ),
        (
            route("headers: {request: {set: {x: \"%REQ(y)%\"}}}"),
            "spec.http[0].headers.request.set.x",
        ),
        (
            route("match: [{headers: {\"@request.auth.claims.sub\": {exact: me}}}]"),
            "spec.http[0].match[0].headers.@request.auth.claims.sub",
        ),
        (service("redirect: {derivePort: FROM_REQUEST_PORT}"), "spec.http[0].redirect.derivePort"),
        (
            service("directResponse: {status: 200, body: {bytes: \"AA==\"}}"),
            "spec.http[0].directResponse.body.bytes",
        ),
        (
            service("route: [{destination: {host: shop}}]")
                .replace("hosts", "gateways: [edge], hosts"),
            "spec.gateways[0]",
        ),
        (
            service("route: [{destination: {host: shop}}]").replace("hosts", "tcp: [], hosts"),
            "spec.tcp",
        ),
        (
            service("route: [{destination: {host: shop}}]").replace("hosts", "tls: [], hosts"),
            "spec.tls",
        ),
        (rule("").replace("DestinationRule", "Sidecar"), "kind"),
        (rule("").replace("istio.io/v1", "istio.io/v2"), "apiVersion"),
        (rule("").replace("networking", "security"), "apiVersion"),
        (rule("").replace("spec", "immutable: true\nspec"), "immutable"),
    ];
    for (text, path) in table {
        let errors = istio::read(&text, "t", Unsupported::Error).unwrap_err();
        let found: Vec<_> = errors
            .problems()
            .iter()
            .filter(|problem| problem.severity() == Severity::Error)
            .map(|problem| {
                (problem.path(), problem.cause(), problem.document(), problem.line().is_some())
            })
            .collect();
        assert_eq!(found, [(path, Cause::Unsupported, Some(1), true)], "{errors}");
        let documents = istio::read(&text, "t", Unsupported::Warn).unwrap();
        assert!(documents.warnings().iter().any(|warning| warning.path() == path), "{path}");
    }
}

#[test]
fn bad_values_say_what_is_allowed() {
    let policy = |block: &str| rule(&format!("trafficPolicy: {{{block}}}"));
    let outlier = |block: &str| policy(&format!("outlierDetection: {{{block}}}"));
    let table = [
        (
            outlier("interval: 10x"),
            "outlierDetection.interval: \"10x\" is not a duration, expected e.g. \"10s\", \"1m30s\", \"0.25s\"",
        ),
        (
            policy("loadBalancer: {simple: ROUND_ROBIN, consistentHash: {useSourceIp: true}}"),
            "loadBalancer.consistentHash: is not allowed beside simple",
        ),
        (
            policy(
                "loadBalancer: {consistentHash: {maglev: {tableSize: 65536}, useSourceIp: true}}",
            ),
            "tableSize: 65536 is not allowed, expected a prime of at most 5000011",
        ),
        (
            policy("loadBalancer: {consistentHash: {minimumRingSize: 8388609, useSourceIp: true}}"),
            "minimumRingSize: 8388609 is not allowed, expected at most 8388608",
        ),
        (
            policy("loadBalancer: {consistentHash: {minimumRingSize: 5}}"),
            "consistentHash: names no key, expected httpHeaderName",
        ),
        (
            policy("loadBalancer: {consistentHash: {useSourceIp: true, httpHeaderName: a}}"),
            "consistentHash.useSourceIp: is a second key, expected one",
        ),
        (
            policy("loadBalancer: {consistentHash: {useSourceIp: false}}"),
            "useSourceIp: false is not allowed, expected true",
        ),
        (
            policy("loadBalancer: {consistentHash: {httpHeaderName: two words}}"),
            "httpHeaderName: \"two words\" is not allowed, expected the name of a header",
        ),
        (
            policy("loadBalancer: {consistentHash: {httpCookie: {name: \"\"}}}"),
            "httpCookie.name: \"\" is not allowed, expected letters",
        ),
        (policy("loadBalancer: {warmup: {}}"), "warmup.duration: is missing"),
        (
            policy("loadBalancer: {warmup: {duration: 0s}}"),
            "warmup.duration: \"0s\" is not allowed, expected 1ms or more",
        ),
        (
            policy("loadBalancer: {warmup: {duration: 1s, minimumPercent: 101}}"),
            "minimumPercent: 101 is not allowed, expected a number from 0 to 100",
        ),
        (
            policy("loadBalancer: {warmup: {duration: 1s, aggression: 0.5}}"),
            "aggression: 0.5 is not allowed, expected a number of at least 1",
        ),
        (
            policy("loadBalancer: {warmup: {duration: 1s, aggression: fast}}"),
            "aggression: \"fast\" is not allowed, expected a number",
        ),
        (outlier("interval: 10"), "outlierDetection.interval: 10 is not a duration, expected e.g."),
        (outlier("interval: -1s"), "outlierDetection.interval: \"-1s\" is not a duration"),
        (
            outlier("interval: 0s"),
            "outlierDetection.interval: \"0s\" is not allowed, expected 1ms or more",
        ),
        (
            outlier("baseEjectionTime: 0.1ms"),
            "baseEjectionTime: \"0.1ms\" is not allowed, expected whole milliseconds",
        ),
        (
            outlier("baseEjectionTime: 9000h"),
            "baseEjectionTime: \"9000h\" is not allowed, expected at most \"8760h\", a year",
        ),
        (
            outlier("maxEjectionPercent: 101"),
            "maxEjectionPercent: 101 is not allowed, expected a whole number from 0 to 100",
        ),
        (
            outlier("maxEjectionPercent: 10%"),
            "maxEjectionPercent: \"10%\" is not allowed, expected a whole number",
        ),
        (
            outlier("consecutive5xxErrors: -1"),
            "consecutive5xxErrors: -1 is not allowed, expected a whole number from 0 to 4294967295",
        ),
        (outlier("consecutive5xxErrors: 3.5"), "consecutive5xxErrors: 3.5 is not allowed"),
        (outlier("consecutive5xxErrors: \"3\""), "consecutive5xxErrors: \"3\" is not allowed"),
        (
            outlier("consecutive5xxErrors: 4294967296"),
            "consecutive5xxErrors: 4294967296 is not allowed",
        ),
        (
            outlier("splitExternalLocalOriginErrors: yes"),
            "\"yes\" is not allowed, expected true or false",
        ),
        (
            policy("connectionPool: {tcp: {maxConnections: 2147483648}}"),
            "maxConnections: 2147483648 is not allowed, expected a whole number from 0 to 2147483647",
        ),
        (policy("connectionPool: [1]"), "connectionPool: a list is not a mapping"),
        (
            policy("loadBalancer: {simple: round_robin}"),
            "simple: \"round_robin\" is not allowed, expected LEAST_REQUEST, ROUND_ROBIN or RANDOM",
        ),
        (
            policy("retryBudget: {percent: 101}"),
            "retryBudget.percent: 101 is not allowed, expected a number from 0 to 100",
        ),
        (
            policy("retryBudget: {percent: 0.00001}"),
            "expected a number from 0 to 100, up to four decimals",
        ),
        (policy("retryBudget: {percent: 20%}"), "percent: \"20%\" is not allowed"),
        (
            rule("subsets: [{name: v1, labels: {version: 1}}]"),
            "subsets[0].labels.version: 1 is not a text, write it in quotes",
        ),
        (
            rule("subsets: [{name: v1}, {name: v1}]"),
            "subsets[1].name: \"v1\" is the name of an earlier subset",
        ),
        (rule("subsets: [{name: \"*\"}]"), "subsets[0].name: \"*\" is not the name of a subset"),
        (rule("subsets: [{labels: {}}]"), "subsets[0].name: is missing"),
        (rule("").replace("host: shop, ", ""), "spec.host: is missing"),
        (
            rule("").replace("shop", "\"sh op\""),
            "spec.host: \"sh op\" is not a host, expected e.g. \"shop\"",
        ),
        (rule("").replace("shop", "\"\""), "spec.host: \"\" is not a host"),
        (rule("").replace("name: rule", ""), "metadata.name: is missing"),
        (rule("").replace("kind: DestinationRule", "kin: x"), "kind: is missing"),
        (service("").replace("[shop]", "[]"), "spec.hosts: is empty"),
        (
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\n"
                .into(),
            "spec: is missing",
        ),
        ("- a\n".into(), "error: a list is not a mapping"),
    ];
    for (text, message) in table {
        let errors = refused(&text);
        assert!(errors.contains(message), "expected {message}\ngot      {errors}");
        // A wrong value is no matter of taste.
        assert!(istio::read(&text, "t", Unsupported::Warn).is_err(), "{text}");
    }
}

#[test]
fn slips_are_named() {
    let error = refused(&rule("trafficPolicy: {outlierDetection: {consecutive5xxError: 3}}"));
    assert!(
        error.contains("consecutive5xxError: is not supported; is consecutive5xxErrors meant?"),
        "{error}"
    );
}

#[test]
fn all_problems_of_all_documents_in_the_order_of_the_text() {
    let text = [
        rule("trafficPolicy: {tunnel: {}, outlierDetection: {interval: 1}}, hots: x"),
        service("timeout: x"),
    ]
    .concat();
    let errors = istio::read(&text, "two.yaml", Unsupported::Error).unwrap_err();
    let found: Vec<_> =
        errors.problems().iter().map(|p| (p.document().unwrap(), p.path())).collect();
    assert_eq!(
        found,
        [
            (1, "spec.trafficPolicy.tunnel"),
            (1, "spec.trafficPolicy.outlierDetection"),
            (1, "spec.trafficPolicy.outlierDetection.interval"),
            (1, "spec.hots"),
            (2, "spec.http[0].route"),
            (2, "spec.http[0].timeout"),
        ]
    );
    assert_eq!(errors.to_string().lines().count(), 6);
    assert_eq!(errors.problems()[0].kind(), "DestinationRule");
    assert_eq!(errors.problems()[4].name(), "service");
    assert_eq!(errors.problems()[4].source_name(), "two.yaml");
}
