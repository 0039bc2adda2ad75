package main

import (
	"context"
	"maps"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// group is the only member of a group: it consumes without end, and knows which offsets it has seen.
type group struct {
	client                         *kgo.Client
	done                           chan struct{}
	mutex                          sync.Mutex
	seen                           map[int32]map[int64]bool
	records, repeated, assignments int64
	errors                         map[string]int
}

func startGroup(req request) (*group, error) {
	this := &group{done: make(chan struct{}), seen: map[int32]map[int64]bool{}, errors: map[string]int{}}
	assigned := func(context.Context, *kgo.Client, map[string][]int32) {
		this.mutex.Lock()
		defer this.mutex.Unlock()
		this.assignments++
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(req.Bootstrap, ",")...), kgo.ConsumerGroup(req.Group),
		kgo.ConsumeTopics(req.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.OnPartitionsAssigned(assigned))
	if err != nil {
		return nil, err
	}
	this.client = client
	go this.run()
	return this, nil
}

func (this *group) run() {
	defer close(this.done)
	for {
		fetches := this.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		this.note(fetches)
	}
}

func (this *group) note(fetches kgo.Fetches) {
	this.mutex.Lock()
	defer this.mutex.Unlock()
	fetches.EachError(func(_ string, _ int32, err error) { this.errors[kind(err)]++ })
	fetches.EachRecord(func(each *kgo.Record) {
		if this.seen[each.Partition] == nil {
			this.seen[each.Partition] = map[int64]bool{}
		}
		if this.seen[each.Partition][each.Offset] {
			this.repeated++
		} else {
			this.records++
		}
		this.seen[each.Partition][each.Offset] = true
	})
}

// report tells how many records were seen, and how often one was seen again.
func (this *group) report(result answer) {
	this.mutex.Lock()
	defer this.mutex.Unlock()
	result["records"], result["repeated"], result["assignments"] = this.records, this.repeated, this.assignments
	result["errors"] = maps.Clone(this.errors)
}

func (this *group) end(result answer) {
	this.client.Close()
	<-this.done
	this.report(result)
}
