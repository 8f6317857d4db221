package interop

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// Time allowed for a command. It takes at most a second, and longer on a machine under load.
	commandTime = 30 * time.Second
	// Time allowed for a daemon to start, and for nodes to find each other.
	patience = 60 * time.Second
)

// node is the common part of dhtstoreNode and kuboNode.
type node struct {
	host
	t       *testing.T
	program string
	env     []string
	// The log file of the daemon.
	log    string
	daemon *exec.Cmd
}

func newNode(t *testing.T, program string, env ...string) node {
	t.Helper()
	home := tempDir(t)
	n := node{host: newHost(t), t: t, program: program, log: filepath.Join(home, "log")}
	n.env = append([]string{"PATH=" + filepath.Dir(ipfsBin) + ":" + os.Getenv("PATH"), "HOME=" + home}, env...)
	return n
}

// run runs a command to its end and returns its stdout. It fails the test if the command fails or takes too long.
func (n *node) run(arguments ...string) string {
	n.t.Helper()
	out, ok := n.try(arguments...)
	if !ok {
		n.t.Fatalf("%s %v on %s: %s\nlog of the daemon:\n%s", filepath.Base(n.program), arguments, n.name, out, n.logged())
	}
	return out
}

// try runs a command. It returns the stdout and true, or all of its output and false if the command failed.
func (n *node) try(arguments ...string) (string, bool) {
	return n.tryProgram(n.program, nil, arguments...)
}

func (n *node) tryProgram(program string, env []string, arguments ...string) (string, bool) {
	command := n.command(program, arguments...)
	command.Env = append(n.env[:len(n.env):len(n.env)], env...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Start(); err != nil {
		return err.Error(), false
	}
	timer := time.AfterFunc(commandTime, func() { command.Process.Kill() })
	defer timer.Stop()
	if err := command.Wait(); err != nil {
		return err.Error() + ": " + stdout.String() + stderr.String(), false
	}
	return strings.TrimSpace(stdout.String()), true
}

// start starts the daemon, waits until it prints `ready`, and ends it at the end of the test. It runs no command to see
// whether the daemon answers: without a daemon, Kubo's commands open the repository themselves, and the daemon cannot
// lock it.
func (n *node) start(env []string, ready string, arguments ...string) {
	n.t.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		n.t.Fatal(err)
	}
	n.daemon = n.command(n.program, arguments...)
	n.daemon.Env = append(n.env[:len(n.env):len(n.env)], env...)
	n.daemon.Stdout, n.daemon.Stderr = log, log
	if err := n.daemon.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { n.stop(syscall.SIGKILL) })
	n.eventually("the daemon is ready", func() bool {
		text, _ := os.ReadFile(n.log)
		return strings.Contains(string(text[before:]), ready)
	})
}

// stop sends the daemon a signal and waits until it ends. It kills a daemon that takes too long.
func (n *node) stop(signal syscall.Signal) {
	if n.daemon == nil {
		return
	}
	n.daemon.Process.Signal(signal)
	timer := time.AfterFunc(commandTime, func() { n.daemon.Process.Kill() })
	n.daemon.Wait()
	timer.Stop()
	n.daemon = nil
}

func (n *node) logged() string {
	text, _ := os.ReadFile(n.log)
	return string(text)
}

func (n *node) eventually(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %v: %s, on %s; log of the daemon:\n%s", patience, what, n.name, n.logged())
		}
	}
}

type dhtstoreNode struct{ node }

func newDhtstore(t *testing.T) *dhtstoreNode {
	t.Helper()
	data := filepath.Join(tempDir(t), "data")
	return &dhtstoreNode{newNode(t, dhtstoreBin, "DHTSTORE_DATA_DIR="+data)}
}

// start starts the daemon. The arguments are those of `run`.
func (d *dhtstoreNode) start(arguments ...string) {
	d.t.Helper()
	d.node.start(nil, "ready peer=", append([]string{"run"}, arguments...)...)
}

func (d *dhtstoreNode) id() string {
	d.t.Helper()
	return d.run("id", "--format", "ids")
}

// address returns the address by which other nodes join it.
func (d *dhtstoreNode) address() string {
	d.t.Helper()
	return "/ip4/" + d.ip + "/tcp/4001/p2p/" + d.id()
}

// holds returns the addresses that the node stores for this provider of the CID, or nil if it has no record.
func (d *dhtstoreNode) holds(cid, provider string) []string {
	d.t.Helper()
	for line := range strings.Lines(d.run("dump", "providers", "--cid", cid, "--format", "ndjson")) {
		var row struct {
			Provider  string
			Addresses []string
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			d.t.Fatalf("%v: %s", err, line)
		}
		if row.Provider == provider {
			return row.Addresses
		}
	}
	return nil
}

// hasInTable returns whether the peer is in one of the node's routing tables now.
func (d *dhtstoreNode) hasInTable(peer string) bool {
	d.t.Helper()
	return strings.Contains(d.run("closest", "--local", "--format", "ids", peer), peer)
}

type kuboNode struct {
	node
	repository string
}

// newKubo returns a node with a repository that `ipfs init` has made with these arguments.
func newKubo(t *testing.T, arguments ...string) *kuboNode {
	t.Helper()
	repository := filepath.Join(tempDir(t), "repository")
	k := &kuboNode{newNode(t, ipfsBin, "IPFS_PATH="+repository, "IPFS_TELEMETRY=off"), repository}
	k.run(append([]string{"init"}, arguments...)...)
	// With mDNS the nodes would find each other without us.
	k.run("config", "--bool", "Discovery.MDNS.Enabled", "false")
	return k
}

// newKuboJoining returns a node that can join the network only through these addresses.
func newKuboJoining(t *testing.T, addresses ...string) *kuboNode {
	t.Helper()
	k := newKubo(t)
	k.run("config", "profile", "apply", "autoconf-off")
	k.run("config", "--bool", "AutoTLS.Enabled", "false")
	k.run("bootstrap", "rm", "--all")
	for _, address := range addresses {
		k.run("bootstrap", "add", address)
	}
	return k
}

func (k *kuboNode) start(env ...string) {
	k.t.Helper()
	k.node.start(env, "Daemon is ready", "daemon")
}

func (k *kuboNode) id() string {
	k.t.Helper()
	return k.run("id", "-f", "<id>")
}

// add adds a file without announcing it.
func (k *kuboNode) add(content string) (cid string) {
	k.t.Helper()
	file := filepath.Join(tempDir(k.t), "file")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		k.t.Fatal(err)
	}
	return k.run("add", "-Q", "--cid-version=1", "--fast-provide-root=false", file)
}

// hasInLanTable waits until the peer is in the routing table of the LAN DHT.
func (k *kuboNode) hasInLanTable(peer string) {
	k.t.Helper()
	k.hasInTable("lan", peer)
}

// hasInTable waits until the peer is in the routing table of this DHT, "wan" or "lan".
func (k *kuboNode) hasInTable(dht, peer string) {
	k.t.Helper()
	k.eventually(peer+" is in the table of the DHT "+dht, func() bool {
		return strings.Contains(k.run("stats", "dht", dht), peer)
	})
}

// finds waits until Kubo finds a provider, and returns all that it finds.
func (k *kuboNode) finds(cid string) (providers string) {
	k.t.Helper()
	k.eventually("a provider of "+cid+" is found", func() bool {
		providers, _ = k.try("routing", "findprovs", cid)
		return providers != ""
	})
	return providers
}

// fetches returns the content that Kubo reads from the peer, which it finds by the DHT.
//
// Kubo 0.43 does not ask a peer for blocks if it was connected to that peer before its Bitswap listened for
// connections. In a network as fast as this one that happens, and `ipfs cat` hangs although the provider is found. So
// Kubo has to connect again.
func (k *kuboNode) fetches(cid, peer string) string {
	k.t.Helper()
	k.try("swarm", "disconnect", "/p2p/"+peer)
	return k.run("cat", "--timeout=20s", cid)
}

// tempDir returns a directory with a short path. [testing.T.TempDir] includes the name of the test, and the path of a
// Unix socket may have at most 107 bytes.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
