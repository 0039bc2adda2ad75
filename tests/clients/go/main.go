// The franz-go client program of the tests: driven by JSON lines, one request a line on standard input, one answer a
// line on standard output. It speaks the same language as the Java program, and is the one that can write and read
// header names that are not UTF-8.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type request struct {
	Op        string            `json:"op"`
	Producer  string            `json:"producer"`
	Load      string            `json:"load"`
	Group     string            `json:"group"`
	Bootstrap string            `json:"bootstrap"`
	Topic     string            `json:"topic"`
	Topics    []string          `json:"topics"`
	Config    map[string]string `json:"config"`
	Records   []record          `json:"records"`
	Out       string            `json:"out"`
	Log       string            `json:"log"`
	Full      bool              `json:"full"`
	Seconds   int               `json:"seconds"`
	loadSettings
}

type record struct {
	Partition int32        `json:"p"`
	Timestamp *int64       `json:"t"`
	Key       *string      `json:"k"`
	Value     *string      `json:"v"`
	Headers   [][2]*string `json:"h"`
}

type answer map[string]any

type program struct {
	producers map[string]producer
	loads     map[string]*load
	groups    map[string]*group
}

type producer struct {
	*kgo.Client
	// With acks=0 nobody knows an offset, and franz-go says 0.
	withoutAck bool
	trace      *trace
}

func main() {
	requests := bufio.NewReaderSize(os.Stdin, 1<<20)
	answers := json.NewEncoder(os.Stdout)
	this := program{map[string]producer{}, map[string]*load{}, map[string]*group{}}
	for {
		line, err := requests.ReadBytes('\n')
		if err != nil {
			return
		}
		result := answer{}
		if err := this.handle(line, result); err != nil {
			result = answer{"error": err.Error()}
		}
		if err := answers.Encode(result); err != nil {
			return
		}
	}
}

func (this *program) handle(line []byte, result answer) error {
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	opened := this.producers[req.Producer]
	switch req.Op {
	case "open":
		noted := &trace{}
		client, err := newProducer(req, kgo.WithHooks(noted))
		this.producers[req.Producer] = producer{client, req.Config["acks"] == "0", noted}
		return err
	case "trace":
		result["written"] = opened.trace.take()
	case "send":
		return send(ctx, opened, req, result)
	case "begin":
		return opened.BeginTransaction()
	case "commit":
		return end(ctx, opened.Client, kgo.TryCommit)
	case "abort":
		return end(ctx, opened.Client, kgo.TryAbort)
	case "close":
		opened.Close()
		delete(this.producers, req.Producer)
	case "load":
		started, err := startLoad(req)
		this.loads[req.Load] = started
		return err
	case "load_status":
		this.loads[req.Load].report(result)
	case "load_stop":
		err := this.loads[req.Load].stop(time.Duration(req.Seconds)*time.Second, result)
		delete(this.loads, req.Load)
		return err
	case "group":
		started, err := startGroup(req)
		this.groups[req.Group] = started
		return err
	case "group_status":
		this.groups[req.Group].report(result)
	case "group_stop":
		this.groups[req.Group].end(result)
		delete(this.groups, req.Group)
	case "read":
		return read(ctx, req, result)
	case "ends":
		return ends(ctx, req, result)
	case "read_raw":
		return readRaw(ctx, req, result)
	default:
		return fmt.Errorf("unknown op %q", req.Op)
	}
	return nil
}

// newProducer maps the settings of Kafka's own producer to options of franz-go.
func newProducer(req request, more ...kgo.Opt) (*kgo.Client, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(req.Bootstrap, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RetryTimeout(60 * time.Second),
	}
	idempotent := req.Config["enable.idempotence"] != "false"
	for key, value := range req.Config {
		number, _ := strconv.Atoi(value)
		switch key {
		case "acks":
			acks := map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}[value]
			options = append(options, kgo.RequiredAcks(acks))
			idempotent = idempotent && value == "all"
		case "compression.type":
			codec := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
				"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}[value]
			options = append(options, kgo.ProducerBatchCompression(codec))
		case "transactional.id":
			options = append(options, kgo.TransactionalID(value))
		case "linger.ms":
			options = append(options, kgo.ProducerLinger(time.Duration(number)*time.Millisecond))
		case "batch.size":
			options = append(options, kgo.ProducerBatchMaxBytes(int32(number)))
		case "retry.eof": // a setting of franz-go alone
			if value == "true" {
				options = append(options, kgo.AlwaysRetryEOF())
			}
		case "enable.idempotence", "delivery.timeout.ms", "request.timeout.ms":
		default:
			return nil, fmt.Errorf("setting %q has no counterpart here", key)
		}
	}
	if !idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	return kgo.NewClient(append(options, more...)...)
}

func send(ctx context.Context, through producer, req request, result answer) error {
	acks := make([]any, len(req.Records))
	for index, each := range req.Records {
		sending := each.kgo(req.Topic)
		through.Produce(ctx, sending, func(sent *kgo.Record, err error) {
			offset := sent.Offset
			if through.withoutAck {
				offset = -1
			}
			if err != nil {
				acks[index] = err.Error()
			} else {
				acks[index] = []int64{int64(sent.Partition), offset, sent.Timestamp.UnixMilli()}
			}
		})
	}
	if err := through.Flush(ctx); err != nil {
		return err
	}
	result["acks"] = acks
	return nil
}

func end(ctx context.Context, producer *kgo.Client, how kgo.TransactionEndTry) error {
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	return producer.EndTransaction(ctx, how)
}

func (from record) kgo(topic string) *kgo.Record {
	to := &kgo.Record{Topic: topic, Partition: from.Partition, Key: decode(from.Key), Value: decode(from.Value)}
	if from.Timestamp != nil {
		to.Timestamp = time.UnixMilli(*from.Timestamp)
	}
	for _, header := range from.Headers {
		to.Headers = append(to.Headers, kgo.RecordHeader{Key: string(decode(header[0])), Value: decode(header[1])})
	}
	return to
}

// decode keeps null apart from empty: only a null gives a nil slice.
func decode(text *string) []byte {
	if text == nil {
		return nil
	}
	bytes, err := base64.StdEncoding.DecodeString(*text)
	if err != nil {
		panic(err)
	}
	if bytes == nil {
		bytes = []byte{}
	}
	return bytes
}

func encode(bytes []byte) string {
	if bytes == nil {
		return "-"
	}
	return "=" + base64.StdEncoding.EncodeToString(bytes)
}

// digest is FNV-1a over lengths and bytes of key, value and headers, the same in every client program of these tests.
func digest(of *kgo.Record) uint64 {
	hash := field(field(0xcbf29ce484222325, of.Key), of.Value)
	for _, header := range of.Headers {
		hash = field(field(hash, append([]byte{}, header.Key...)), header.Value)
	}
	return hash
}

func field(hash uint64, bytes []byte) uint64 {
	length := uint32(len(bytes))
	if bytes == nil {
		length = 0xffffffff
	}
	for shift := 0; shift < 32; shift += 8 {
		hash = (hash ^ uint64(length>>shift&0xff)) * 0x100000001b3
	}
	for _, each := range bytes {
		hash = (hash ^ uint64(each)) * 0x100000001b3
	}
	return hash
}
