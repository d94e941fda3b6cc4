// Package metrics is the front door of Prometheus: /metrics, in its text format.
//
// Two kinds of numbers come together there. What a process counts as it goes, such
// as commits and handshakes, it is told by those who do it, through the functions
// that the wiring hands them. What the database knows, such as runs by state, is
// asked for at each scrape, of the tenant of the token that the scrape carries: a
// node that has just started tells it as well as any other.
//
// Labels have few values, none of which anybody outside chooses: no host, key,
// user or address is one.
package metrics

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// Metrics is what this process counts. Its methods may be called from any
// goroutine.
type Metrics struct {
	registry    *prometheus.Registry
	updates     *prometheus.HistogramVec
	targets     *prometheus.CounterVec
	connections *prometheus.HistogramVec
}

// New returns Metrics in which nothing was counted yet but the process.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		updates: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyturn_store_update_seconds", Help: "From asking for a commit, with its event, to its being durable.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"outcome"}),
		targets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyturn_targets_total", Help: "Steps of runs at one place, by how they came out.",
		}, []string{"procedure", "step", "outcome"}),
		connections: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyturn_ssh_handshake_seconds", Help: "Connections to SSH servers, from dialing to the answer that they were made for.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}, []string{"purpose", "outcome"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keyturn_build_info", Help: "1, with the version of the program.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.registry.MustRegister(m.updates, m.targets, m.connections, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Updated counts an update of the store.
func (m *Metrics) Updated(took time.Duration, err error) {
	m.updates.WithLabelValues(outcome(err)).Observe(took.Seconds())
}

// Landed counts a step of a run that came to an end at one place: done, failed, or
// waiting for another attempt.
func (m *Metrics) Landed(procedure, step, outcome string) {
	m.targets.WithLabelValues(procedure, step, outcome).Inc()
}

// Connected counts a connection to a host, and for what it was made.
func (m *Metrics) Connected(purpose string, took time.Duration, err error) {
	m.connections.WithLabelValues(purpose, outcome(err)).Observe(took.Seconds())
}

// outcome is an error as a label: its kind, or ok.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return trust.KindOf(err).String()
}

// Handler answers GET /metrics to those with the permission "Metrics Read".
func (m *Metrics) Handler(plane *control.Plane, log func(context.Context, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			api.WriteJSON(w, http.StatusMethodNotAllowed, map[string]string{"error": "/metrics is read with GET"})
			return
		}
		counts, err := countsFor(r, plane)
		if err != nil {
			refuse(w, r, err, log)
			return
		}
		state := prometheus.NewRegistry()
		state.MustRegister(stateOf(counts))
		promhttp.HandlerFor(prometheus.Gatherers{m.registry, state}, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
}

// countsFor finds out who asks, and reads what that tenant's database knows.
func countsFor(r *http.Request, plane *control.Plane) (control.Counts, error) {
	var actor control.Actor
	var err error
	if token, ok := api.Bearer(r); ok {
		actor, err = plane.Token(r.Context(), token, api.Source(r))
	} else if user, password, ok := r.BasicAuth(); ok {
		actor, err = plane.Password(r.Context(), user, password, r.Header.Get("Keyturn-TOTP"), api.Source(r))
	} else {
		err = trust.Errorf(trust.Unauthenticated, "no credential was sent").WithHint("keyturn token create prometheus --permission 'Metrics Read'")
	}
	if err != nil {
		return control.Counts{}, err
	}
	return plane.Count(r.Context(), actor)
}

func refuse(w http.ResponseWriter, r *http.Request, err error, log func(context.Context, error)) {
	switch trust.KindOf(err) {
	case trust.Unauthenticated:
		w.Header().Set("WWW-Authenticate", `Bearer, Basic realm="keyturn"`)
		api.WriteJSON(w, http.StatusUnauthorized, map[string]string{"error": err.Error()})
	case trust.Denied:
		api.WriteJSON(w, http.StatusForbidden, map[string]string{"error": err.Error()})
	case trust.Exhausted:
		api.WriteJSON(w, http.StatusTooManyRequests, map[string]string{"error": err.Error()})
	default:
		log(r.Context(), err)
		api.WriteJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "the database does not answer"})
	}
}

// A state is what the database knew at one scrape.
type state []prometheus.Metric

func stateOf(c control.Counts) state {
	var s state
	add := func(name, help string, n int, labels ...string) {
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		s = append(s, prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), prometheus.GaugeValue, float64(n), values...))
	}
	for _, r := range c.Runs {
		add("keyturn_runs", "Runs that there are, by how they stand.", r.Count, "procedure", r.Procedure, "state", string(r.State))
	}
	for mode, n := range c.Hosts.ByMode {
		add("keyturn_hosts", "Hosts, by what may be done to them.", n, "mode", string(mode))
	}
	for outcome, n := range c.Hosts.ByOutcome {
		text := string(outcome)
		if text == "" {
			text = "unscanned"
		}
		add("keyturn_hosts_scanned", "Hosts, by what came of the newest attempt to scan them.", n, "outcome", text)
	}
	add("keyturn_hosts_unreachable", "Hosts that the newest scan could not reach, or that did not let it in.", c.Hosts.ByOutcome["unreachable"])
	return s
}

// Describe is called by prometheus. What there is is known at a scrape only.
func (s state) Describe(chan<- *prometheus.Desc) {}

// Collect is called by prometheus.
func (s state) Collect(to chan<- prometheus.Metric) {
	for _, m := range s {
		to <- m
	}
}
