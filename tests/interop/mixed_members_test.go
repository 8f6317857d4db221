package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mixedMember is a node of the mixed network, of any kind. Its address and its identity stay the same for the whole
// test.
type mixedMember interface {
	kind() string
	peer() string
	// Returns its listen address, without the peer id.
	address() string
	// Starts it and connects it to these nodes. A dhtstore node still has the records that it stored before.
	up(join []string) error
	// Ends it with SIGKILL.
	down()
	// Returns the count of peers in its routing table of the LAN DHT.
	table() (int, error)
	provide(cid string) error
	// Returns all providers that a complete look-up finds, with their addresses.
	find(cid string) (map[string][]string, error)
}

// mixedOurs is a `dhtstore run` with its data directory.
type mixedOurs struct {
	*dhtstoreNode
	peerID string
}

func newMixedOurs(t *testing.T) *mixedOurs {
	t.Helper()
	d := newDhtstore(t)
	d.run("init")
	return &mixedOurs{d, d.id()}
}

func (m *mixedOurs) kind() string    { return "dhtstore" }
func (m *mixedOurs) peer() string    { return m.peerID }
func (m *mixedOurs) address() string { return "/ip4/" + m.ip + "/tcp/4001" }

func (m *mixedOurs) up(join []string) error {
	arguments := []string{"--listen", m.address()}
	for _, address := range join {
		arguments = append(arguments, "--bootstrap", address)
	}
	m.start(arguments...)
	return nil
}

func (m *mixedOurs) down() { m.stop(syscall.SIGKILL) }

func (m *mixedOurs) table() (int, error) {
	out, ok := m.try("stat", "--format", "json")
	if !ok {
		return 0, errors.New(out)
	}
	var stat struct {
		Tables []struct {
			Dht   string
			Peers int
		}
	}
	err := json.Unmarshal([]byte(out), &stat)
	for _, table := range stat.Tables {
		if table.Dht == "lan" {
			return table.Peers, err
		}
	}
	return 0, errors.Join(err, fmt.Errorf("no LAN table in %s", out))
}

func (m *mixedOurs) provide(cid string) error {
	if out, ok := m.try("provide", "--wait", cid); !ok {
		return errors.New(out)
	}
	return nil
}

func (m *mixedOurs) find(cid string) (map[string][]string, error) {
	out, ok := m.try("findprovs", "--format", "ndjson", cid)
	if !ok {
		return nil, errors.New(out)
	}
	found := make(map[string][]string)
	for line := range strings.Lines(out) {
		var row mixedProvider
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			return nil, fmt.Errorf("%w: %s", err, line)
		}
		found[row.Peer] = row.Addresses
	}
	return found, nil
}

// mixedLibrary is a process of go-libp2p-kad-dht or rust-libp2p that answers requests line by line. A restart keeps
// only its identity.
type mixedLibrary struct {
	node
	name, seed string
	env        []string
	peerID     string

	// Held during a request, so that there is one at a time.
	lock    sync.Mutex
	process *exec.Cmd
	stdin   io.WriteCloser
	lines   *bufio.Scanner
}

func newMixedLibrary(t *testing.T, name, program string, random *rand.Rand, env ...string) *mixedLibrary {
	t.Helper()
	seed := fmt.Sprintf("%016x%016x%016x%016x", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
	m := &mixedLibrary{node: newNode(t, program), name: name, seed: seed, env: env}
	t.Cleanup(m.down)
	return m
}

func (m *mixedLibrary) kind() string    { return m.name }
func (m *mixedLibrary) peer() string    { return m.peerID }
func (m *mixedLibrary) address() string { return "/ip4/" + m.ip + "/tcp/4001" }

func (m *mixedLibrary) up(join []string) error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	process := m.command(m.program, m.address(), m.seed)
	process.Env = append(m.node.env[:len(m.node.env):len(m.node.env)], m.env...)
	process.Stderr = log
	stdout, err := process.StdoutPipe()
	if err != nil {
		return err
	}
	if m.stdin, err = process.StdinPipe(); err != nil {
		return err
	}
	if err := process.Start(); err != nil {
		return err
	}
	m.process, m.lines = process, bufio.NewScanner(stdout)
	first, err := m.answer()
	if err != nil {
		return err
	}
	m.peerID = first.Peer
	if len(join) == 0 {
		return nil
	}
	_, err = m.ask(mixedRequest{Op: "join", Addresses: join})
	return err
}

func (m *mixedLibrary) down() {
	if m.process == nil {
		return
	}
	m.process.Process.Kill()
	m.process.Wait()
	m.process = nil
}

// answer returns the next line of the process. It kills a process that does not answer in time.
func (m *mixedLibrary) answer() (answer mixedAnswer, err error) {
	timer := time.AfterFunc(mixedRequestTime+commandTime, func() { m.process.Process.Kill() })
	defer timer.Stop()
	if !m.lines.Scan() {
		return answer, fmt.Errorf("%s on %s stopped answering: %w; its log:\n%s", m.name, m.node.name, errors.Join(m.lines.Err(), io.EOF), m.logged())
	}
	if err := json.Unmarshal(m.lines.Bytes(), &answer); err != nil {
		return answer, fmt.Errorf("%w: %s", err, m.lines.Text())
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

func (m *mixedLibrary) ask(request mixedRequest) (mixedAnswer, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if err := json.NewEncoder(m.stdin).Encode(request); err != nil {
		return mixedAnswer{}, err
	}
	return m.answer()
}

func (m *mixedLibrary) table() (int, error) {
	answer, err := m.ask(mixedRequest{Op: "table"})
	return answer.Count, err
}

func (m *mixedLibrary) provide(cid string) error {
	_, err := m.ask(mixedRequest{Op: "provide", Cid: cid})
	return err
}

func (m *mixedLibrary) find(cid string) (map[string][]string, error) {
	answer, err := m.ask(mixedRequest{Op: "find", Cid: cid})
	found := make(map[string][]string)
	for _, provider := range answer.Providers {
		found[provider.Peer] = provider.Addresses
	}
	return found, err
}
