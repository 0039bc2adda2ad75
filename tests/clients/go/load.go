package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type loadSettings struct {
	Partitions int     `json:"partitions"`
	Rate       float64 `json:"rate"`
	ValueBytes int     `json:"value_bytes"`
}

// load produces without end, whatever happens to the brokers, and writes one line per record to a log: A acknowledged
// or U sent with unknown outcome; then partition, offset, timestamp, sequence number and content digest.
type load struct {
	request
	client                       *kgo.Client
	file                         *os.File
	log                          *bufio.Writer
	stopping                     chan struct{}
	done                         chan struct{}
	mutex                        sync.Mutex
	sent, acknowledged, unknown_ int64
	lastError                    string
	errors                       map[string]int
}

func startLoad(req request) (*load, error) {
	client, err := newProducer(req)
	if err != nil {
		return nil, err
	}
	file, err := os.Create(req.Log)
	if err != nil {
		return nil, err
	}
	started := &load{request: req, client: client, file: file, log: bufio.NewWriter(file),
		stopping: make(chan struct{}), done: make(chan struct{}), errors: map[string]int{}}
	go started.run()
	return started, nil
}

func (this *load) run() {
	defer close(this.done)
	started := time.Now()
	for sequence := int64(0); ; sequence++ {
		wait := time.Duration(0)
		if this.Rate > 0 {
			wait = time.Until(started.Add(time.Duration(float64(sequence) / this.Rate * 1e9)))
		}
		select {
		case <-this.stopping:
			return
		case <-time.After(wait):
		}
		this.send(sequence)
	}
}

func (this *load) send(sequence int64) {
	value := make([]byte, max(this.ValueBytes, 20))
	rand.New(rand.NewSource(sequence)).Read(value)
	copy(value, fmt.Sprintf("%d ", sequence))
	each := &kgo.Record{Topic: this.Topic, Partition: int32(sequence % int64(max(this.Partitions, 1))),
		Key: fmt.Appendf(nil, "key-%d", sequence%997), Value: value,
		Headers: []kgo.RecordHeader{{Key: "sequence", Value: fmt.Append(nil, sequence)}}}
	this.mutex.Lock()
	this.sent++
	this.mutex.Unlock()
	this.client.Produce(context.Background(), each, func(sent *kgo.Record, err error) {
		this.mutex.Lock()
		defer this.mutex.Unlock()
		if err != nil {
			this.unknown_++
			this.lastError = err.Error()
			this.errors[kind(err)]++
			fmt.Fprintf(this.log, "U -1 -1 -1 %d %x\n", sequence, digest(each))
			return
		}
		this.acknowledged++
		fmt.Fprintf(this.log, "A %d %d %d %d %x\n", sent.Partition, sent.Offset, sent.Timestamp.UnixMilli(), sequence, digest(sent))
	})
}

func (this *load) report(result answer) {
	this.mutex.Lock()
	defer this.mutex.Unlock()
	result["sent"], result["acknowledged"], result["unknown"] = this.sent, this.acknowledged, this.unknown_
	result["aborted"], result["last_error"] = 0, this.lastError
	result["errors"] = maps.Clone(this.errors)
}

// kind is an error without what differs from one time to the next.
func kind(err error) string {
	var told *kerr.Error
	if errors.As(err, &told) {
		return told.Message
	}
	return fmt.Sprintf("%T", err)
}

// stop ends the load; limit is how long what is in flight may take.
func (this *load) stop(limit time.Duration, result answer) error {
	close(this.stopping)
	<-this.done
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := this.client.Flush(ctx); err != nil {
		_ = this.client.AbortBufferedRecords(context.Background())
	}
	this.client.Close()
	this.report(result)
	this.mutex.Lock()
	defer this.mutex.Unlock()
	if err := this.log.Flush(); err != nil {
		return err
	}
	return this.file.Close()
}
