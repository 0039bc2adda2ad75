// Package contract is what every Go program of the client matrix shares: its command line, its answers and its records.
package contract

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"
)

const (
	// Records of every topic that a program produces to.
	Records = 30
	// CommonRecords in the topic that every program reads.
	CommonRecords = 60
	// Common is that topic.
	Common = "matrix-common"
	// Partitions of every topic.
	Partitions = 3
	// Patience with anything that is waited for.
	Patience = 20 * time.Second
)

// Saw is what a feature's run saw. It must be the same directly and through the proxy.
type Saw map[string]any

// ErrUnsupported is what this client cannot do, whoever the broker is.
var ErrUnsupported = errors.New("unsupported")

// Unsupported says that the client cannot do a thing.
func Unsupported(reason string) error { return fmt.Errorf("%w: %s", ErrUnsupported, reason) }

// Security as the harness gives it.
type Security struct {
	Protocol  string `json:"protocol"`
	Mechanism string `json:"mechanism"`
	Username  string `json:"username"`
	Password  string `json:"password"`
	CA        string `json:"ca"`
}

// Run is what a program was started with.
type Run struct {
	Bootstrap string
	Prefix    string
	Security  Security
}

// TLS is the client's settings for TLS, nil where the protocol has none.
func (r *Run) TLS() *tls.Config {
	if !strings.HasSuffix(r.Security.Protocol, "SSL") {
		return nil
	}
	pem, err := os.ReadFile(r.Security.CA)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// Topic of a feature.
func (r *Run) Topic(feature string) string { return r.Prefix + "-" + feature }

// Key of a record.
func Key(index int) []byte { return []byte(fmt.Sprintf("key-%d", index)) }

// Value of a record.
func Value(feature string, index int) []byte {
	return []byte(fmt.Sprintf("%s %d %s", feature, index, strings.Repeat("x", 200)))
}

// Lines collects what was read, each record once.
type Lines map[string]struct{}

// Add notes a record.
func (l Lines) Add(partition int32, offset int64, key, value []byte) {
	l[fmt.Sprintf("%d %d %s %s", partition, offset, key, value)] = struct{}{}
}

// Digest of all records in the order of their lines.
func (l Lines) Digest() string {
	sorted := make([]string, 0, len(l))
	for line := range l {
		sorted = append(sorted, line)
	}
	sort.Strings(sorted)
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n")))
	return hex.EncodeToString(sum[:])[:16]
}

// Until calls f until it says that it is done, for as long as patience lasts.
func Until(f func() (bool, error)) error {
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if done, err := f(); done || err != nil {
			return err
		}
	}
	return errors.New("not within the time")
}

// Settled asks for what a group has committed until all of the common topic is, since the markers that make offsets
// count are written after the transaction's end was answered.
func Settled(committed func() (int64, error)) (int64, error) {
	sum := int64(0)
	err := Until(func() (bool, error) {
		var err error
		sum, err = committed()
		return sum == CommonRecords, err
	})
	return sum, err
}

// Main runs the features named on the command line.
func Main(features map[string]func(*Run) (Saw, error)) {
	run := &Run{Bootstrap: os.Args[1], Prefix: os.Args[2]}
	if err := json.Unmarshal([]byte(os.Args[3]), &run.Security); err != nil {
		panic(err)
	}
	out := json.NewEncoder(os.Stdout)
	for _, name := range os.Args[4:] {
		answer := map[string]any{"feature": name}
		feature, found := features[name]
		saw, err := Saw(nil), error(Unsupported("the client has no such thing"))
		if found {
			saw, err = feature(run)
		}
		switch {
		case err == nil:
			answer["outcome"], answer["saw"] = "ok", saw
		case errors.Is(err, ErrUnsupported):
			answer["outcome"], answer["error"] = "unsupported", strings.TrimPrefix(err.Error(), "unsupported: ")
		default:
			answer["outcome"], answer["error"] = "failed", err.Error()
		}
		if err := out.Encode(answer); err != nil {
			panic(err)
		}
	}
}
