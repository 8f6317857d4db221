package interop

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The publisher is gone and our process was killed, so Kubo resolves the name from our disk.
func TestKuboResolvesNamesThatKuboPublishedAfterKill9(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	publisher := newKuboJoining(t, server.address())
	publisher.start()
	publisher.hasInLanTable(server.id())
	content := publisher.add("behind a name\n")
	publish := func(path, key string) {
		t.Helper()
		publisher.run("name", "publish", "--key="+key, "--lifetime=24h", "/ipfs/"+path)
	}
	names := map[string]string{}
	for _, kind := range []string{"ed25519", "rsa"} {
		names[kind] = publisher.run("key", "gen", "--type="+kind, kind)
		// The second record has the higher sequence number, so it replaces the first.
		publish("bafkqaaa", kind)
		publish(content, kind)
	}
	publisher.stop(syscall.SIGTERM)
	settle()
	server.stop(syscall.SIGKILL)
	server.start()

	reader := newKuboJoining(t, server.address())
	reader.start()
	reader.hasInLanTable(server.id())
	for kind, name := range names {
		if resolved := strings.TrimSpace(reader.run("name", "resolve", "--nocache", "/ipns/"+name)); resolved != "/ipfs/"+content {
			t.Errorf("%s: %s resolves to %q, want %s", kind, name, resolved, content)
		}
	}
}

// VAL-2: go-libp2p stores the public keys of RSA peers under `/pk/`, because their peer ids do not contain them.
func TestGoPutsAPublicKeyThatGoGetsFromUs(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	_, public, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	value, err := crypto.MarshalPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	writer, reader := newGoNode(t, server, dht.ModeClient), newGoNode(t, server, dht.ModeClient)
	for _, g := range []*goNode{writer, reader} {
		server.eventually("go has us in its table", g.hasServer)
	}
	key := "/pk/" + string(id)
	if err := writer.PutValue(writer.context(), key, value); err != nil {
		t.Fatal(err)
	}
	got, err := reader.GetValue(reader.context(), key)
	if err != nil || !bytes.Equal(got, value) {
		t.Fatalf("%v: got %x, want %x", err, got, value)
	}
}

// The same bytes of an IPNS record pass through all four commands. `ipfs routing get` returns the record that `dhtstore
// put --ipns` signed, and `ipfs routing put` accepts what `dhtstore get --raw` writes.
func TestIpnsRecordsPassBetweenOurCommandsAndThoseOfKubo(t *testing.T) {
	server, publisher := newDhtstore(t), newDhtstore(t)
	server.start()
	publisher.start("--bootstrap", server.address())
	kubo := newKuboJoining(t, server.address())
	kubo.start()
	kubo.hasInLanTable(server.id())
	publisher.eventually("the server is known", func() bool { return publisher.hasInTable(server.id()) })
	publisher.run("put", "--ipns", "/ipfs/bafkqaaa")
	name := "/ipns/" + publisher.id()
	ours, theirs := filepath.Join(tempDir(t), "ours"), filepath.Join(tempDir(t), "theirs")
	toFile := func(n *node, path, command string) []byte {
		t.Helper()
		if said, ok := n.tryProgram("/bin/sh", nil, "-c", n.program+" "+command+" >"+path); !ok {
			t.Fatalf("%s: %s", command, said)
		}
		bytes, err := os.ReadFile(path)
		if err != nil || len(bytes) == 0 {
			t.Fatalf("%s: %v", command, err)
		}
		return bytes
	}
	record := toFile(&publisher.node, ours, "get --local --raw "+name)
	if got := toFile(&kubo.node, theirs, "routing get "+name); !bytes.Equal(got, record) {
		t.Fatalf("`ipfs routing get` returns %x, want %x", got, record)
	}
	if resolved := kubo.run("name", "resolve", "--nocache", name); resolved != "/ipfs/bafkqaaa" {
		t.Fatalf("resolves to %q", resolved)
	}

	// The other server has never been connected to the publisher.
	other := newDhtstore(t)
	other.start()
	writer := newKuboJoining(t, other.address())
	writer.start()
	writer.hasInLanTable(other.id())
	writer.run("routing", "put", name, ours)
	if got := toFile(&other.node, theirs, "get --local --raw "+name); !bytes.Equal(got, record) {
		t.Fatalf("`ipfs routing put` stored %x, want %x", got, record)
	}
	if got := other.run("get", "--local", name); !strings.Contains(got, "/ipfs/bafkqaaa") {
		t.Fatalf("`dhtstore get` prints %q", got)
	}
}
