package interop

import (
	"bytes"
	"crypto/rand"
	"strings"
	"syscall"
	"testing"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The publisher is gone and our process was killed, so what Kubo resolves comes from our disk.
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
		// The better record, by its sequence number, wins.
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
			t.Errorf("%s: %s resolves to %q, published was %s", kind, name, resolved, content)
		}
	}
}

// VAL-2: go keeps the keys of RSA peers under `/pk/`, since their ids do not hold them.
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
		t.Fatalf("%v: %x, put was %x", err, got, value)
	}
}
