package interop

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/event"
	libp2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	"github.com/libp2p/go-msgio/pbio"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"
)

// The protocol of the LAN DHT, and the extension that makes go-libp2p use it instead of the public one.
const (
	lanProtocol = protocol.ID("/ipfs/lan/kad/1.0.0")
	lan         = protocol.ID("/lan")
)

// goNode is go-libp2p-kad-dht in this process, connected to a dhtstore server.
type goNode struct {
	*dht.IpfsDHT
	t         *testing.T
	server    peer.AddrInfo
	messenger *pb.ProtocolMessenger
}

// newGoHost returns a host without go-libp2p's own limits, which would affect the tests.
func newGoHost(t *testing.T, listen ...string) libp2phost.Host {
	t.Helper()
	if err := joinNetwork(); err != nil {
		t.Fatal(err)
	}
	options := []libp2p.Option{
		libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}),
	}
	if len(listen) > 0 {
		options = append(options, libp2p.ListenAddrStrings(listen...))
	}
	h, err := libp2p.New(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// newGoNode returns a node of the LAN DHT that listens on the address of the bridge.
func newGoNode(t *testing.T, server *dhtstoreNode, mode dht.ModeOpt) *goNode {
	t.Helper()
	return newGoNodeOf(t, newGoHost(t, "/ip4/"+ownPrivate+"/tcp/0"), lan, server.address(), mode)
}

// newGoNodeOf returns a node that is connected to the address. `extension` is what the DHT's protocol id has in
// addition to the public one.
func newGoNodeOf(t *testing.T, h libp2phost.Host, extension protocol.ID, address string, mode dht.ModeOpt) *goNode {
	t.Helper()
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dht.New(h, dht.ProtocolExtension(extension), dht.Mode(mode), dht.BootstrapPeers(*info), dht.DisableAutoRefresh())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	messenger, err := pb.NewProtocolMessenger(d.MessageSender())
	if err != nil {
		t.Fatal(err)
	}
	g := &goNode{IpfsDHT: d, t: t, server: *info, messenger: messenger}
	if err := h.Connect(g.context(), *info); err != nil {
		t.Fatal(err)
	}
	return g
}

// context returns a context that ends after the time allowed for a command.
func (g *goNode) context() context.Context { return bounded(g.t) }

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	t.Cleanup(cancel)
	return ctx
}

// hasServer returns whether the server is in go's routing table.
func (g *goNode) hasServer() bool { return g.RoutingTable().Find(g.server.ID) != "" }

// streams returns the count of open DHT streams to the server.
func (g *goNode) streams() (count int) {
	for _, connection := range g.Host().Network().ConnsToPeer(g.server.ID) {
		for _, stream := range connection.GetStreams() {
			if strings.Contains(string(stream.Protocol()), "/kad/") {
				count++
			}
		}
	}
	return count
}

// multihashOf returns the sha2-256 multihash of the text.
func multihashOf(t *testing.T, text string) multihash.Multihash {
	t.Helper()
	digest := sha256.Sum256([]byte(text))
	encoded, err := multihash.Encode(digest[:], multihash.SHA2_256)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// multihashOfCid returns the multihash of a CID in Kubo's text form.
func multihashOfCid(t *testing.T, text string) multihash.Multihash {
	t.Helper()
	decoded, err := cid.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return decoded.Hash()
}

// Tests what go-libp2p sends when it adds a server to its table, checks it and asks it.
func TestGoAdmitsUsChecksOnUsAndIsAnswered(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	g := newGoNode(t, server, dht.ModeServer)
	server.eventually("go has us in its table, after its own look-up check", g.hasServer)
	if err := g.Ping(g.context(), g.server.ID); err != nil {
		t.Fatalf("PING: %v", err)
	}
	if err := <-g.ForceRefresh(); err != nil {
		t.Fatalf("refresh: %v", err)
	}
	if !g.hasServer() {
		t.Fatal("the refresh removed us from go's table")
	}
	// MODE-1: a server enters our table.
	server.eventually("go is in our table", func() bool { return server.hasInTable(g.PeerID().String()) })

	// SRV-5: a second go node finds it through us.
	other := newGoNode(t, server, dht.ModeClient)
	server.eventually("the second go node has us in its table", other.hasServer)
	found, err := other.FindPeer(other.context(), g.PeerID())
	if err != nil || len(found.Addrs) == 0 {
		t.Fatalf("FindPeer: %v %v", found, err)
	}
	if server.hasInTable(other.PeerID().String()) {
		t.Fatal("a client is in our table")
	}
	// A client can be found too, as long as it is connected.
	found, err = g.FindPeer(g.context(), other.PeerID())
	if err != nil || len(found.Addrs) == 0 {
		t.Fatalf("FindPeer of a client: %v %v", found, err)
	}
}

// go-libp2p changes its mode when others report its reachability, and announces the change by identify.
func TestAGoNodeEntersOurTableAsAServerAndLeavesItAsAClient(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	g := newGoNode(t, server, dht.ModeAuto)
	reachability, err := g.Host().EventBus().Emitter(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer reachability.Close()
	id := g.PeerID().String()
	// It begins as a client. We know it, and it is not in our table.
	server.eventually("we know its protocols", func() bool { return strings.Contains(server.run("peers", "--format", "ndjson"), id) })
	if server.hasInTable(id) {
		t.Fatal("a client is in our table")
	}
	for round := range 2 {
		for _, step := range []struct {
			reachability network.Reachability
			listed       bool
		}{{network.ReachabilityPublic, true}, {network.ReachabilityPrivate, false}} {
			if err := reachability.Emit(event.EvtLocalReachabilityChanged{Reachability: step.reachability}); err != nil {
				t.Fatal(err)
			}
			server.eventually(fmt.Sprintf("round %d: in our table: %v", round, step.listed), func() bool { return server.hasInTable(id) == step.listed })
		}
	}
}

// go-libp2p writes ADD_PROVIDER and uses the same stream again without reading. It would take an echo for the answer to
// the next request, and see a provider where there is none.
func TestGoUsesOneStreamForAnnouncementsAndRequests(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	g := newGoNode(t, server, dht.ModeClient)
	self := peer.AddrInfo{ID: g.PeerID(), Addrs: g.Host().Addrs()}
	const rounds = 100
	for i := range rounds {
		announced, unknown := multihashOf(t, fmt.Sprint("announced ", i)), multihashOf(t, fmt.Sprint("unknown ", i))
		if err := g.messenger.PutProviderAddrs(g.context(), g.server.ID, announced, self); err != nil {
			t.Fatal(err)
		}
		found, _, err := g.messenger.GetProviders(g.context(), g.server.ID, unknown)
		if err != nil || len(found) != 0 {
			t.Fatalf("round %d: %v %v for a key that nobody announced", i, found, err)
		}
		found, _, err = g.messenger.GetProviders(g.context(), g.server.ID, announced)
		if err != nil || len(found) != 1 || found[0].ID != self.ID || len(found[0].Addrs) == 0 {
			t.Fatalf("round %d: got %v %v, want %v", i, found, err, self)
		}
		if err := g.messenger.Ping(g.context(), g.server.ID); err != nil {
			t.Fatalf("round %d: PING: %v", i, err)
		}
	}
	if count := g.streams(); count != 1 {
		t.Fatalf("%d streams for %d requests, want 1", count, 4*rounds)
	}
}

// rawStream is a DHT stream with go-libp2p's own reader of messages.
type rawStream struct {
	network.Stream
	reader msgio.Reader
}

func openStream(t *testing.T, h libp2phost.Host, server peer.AddrInfo) (*rawStream, error) {
	stream, err := h.NewStream(bounded(t), server.ID, lanProtocol)
	if err != nil {
		return nil, err
	}
	stream.SetDeadline(time.Now().Add(commandTime))
	return &rawStream{stream, msgio.NewVarintReaderSize(stream, network.MessageSizeMax)}, nil
}

func (s *rawStream) send(message *pb.Message) error {
	return pbio.NewDelimitedWriter(s).WriteMsg(message)
}

// read returns the next answer, and its length in bytes.
func (s *rawStream) read() (*pb.Message, int, error) {
	bytes, err := s.reader.ReadMsg()
	if err != nil {
		return nil, 0, err
	}
	var message pb.Message
	return &message, len(bytes), proto.Unmarshal(bytes, &message)
}

// announceFromNewHost connects a new go-libp2p host, which announces itself as a provider of the key at these
// addresses.
func announceFromNewHost(t *testing.T, server peer.AddrInfo, key multihash.Multihash, addresses []multiaddr.Multiaddr) {
	t.Helper()
	h := newGoHost(t)
	h.Peerstore().AddAddrs(server.ID, server.Addrs, peerstore.TempAddrTTL)
	stream, err := openStream(t, h, server)
	if err != nil {
		t.Fatal(err)
	}
	message := pb.NewMessage(pb.Message_ADD_PROVIDER, key, 0)
	message.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: h.ID(), Addrs: addresses}})
	if err := stream.send(message); err != nil {
		t.Fatal(err)
	}
	// On the same stream, so the answer to PING proves that the announcement was read.
	if err := stream.send(pb.NewMessage(pb.Message_PING, nil, 0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := stream.read(); err != nil {
		t.Fatal(err)
	}
	h.Close()
}

func TestGoReadsOurLargestAnswers(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	key := multihashOf(t, "provided by many")
	var addresses []multiaddr.Multiaddr
	for port := range 12 {
		addresses = append(addresses, multiaddr.StringCast(fmt.Sprintf("/ip4/10.87.0.1/udp/%d/quic-v1", 4001+port)))
	}
	g := newGoNode(t, server, dht.ModeClient)
	const providers = 150
	for range providers {
		announceFromNewHost(t, g.server, key, addresses)
	}
	stream, err := openStream(t, g.Host(), g.server)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.send(pb.NewMessage(pb.Message_GET_PROVIDERS, key, 0)); err != nil {
		t.Fatal(err)
	}
	answer, size, err := stream.read()
	if err != nil {
		t.Fatal(err)
	}
	// At most 16 KiB. Not all providers fit, so the space left in the answer is less than one provider takes.
	if size > 16<<10 || size < 15<<10 {
		t.Fatalf("an answer of %d bytes with %d providers", size, len(answer.ProviderPeers))
	}
	for _, provider := range pb.PBPeersToPeerInfos(answer.ProviderPeers) {
		if len(provider.Addrs) != len(addresses) {
			t.Fatalf("%s: %d addresses, want %d", provider.ID, len(provider.Addrs), len(addresses))
		}
	}
	// Each answer holds a random subset, so together the answers name all providers.
	seen := map[peer.ID]bool{}
	for range 100 {
		found, _, err := g.messenger.GetProviders(g.context(), g.server.ID, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range found {
			seen[info.ID] = true
		}
	}
	if len(seen) != providers {
		t.Fatalf("100 answers named %d of %d providers", len(seen), providers)
	}
}

// Holds 400 streams of one connection open and sends several requests on each. The limit is 512.
func TestGoIsAnsweredOnManyStreamsOfOneConnection(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	g := newGoNode(t, server, dht.ModeClient)
	const count = 400
	streams := make([]*rawStream, count)
	ask := func(stream *rawStream, question string) error {
		key := multihashOf(t, question)
		if err := stream.send(pb.NewMessage(pb.Message_GET_PROVIDERS, key, 0)); err != nil {
			return err
		}
		answer, _, err := stream.read()
		if err == nil && string(answer.GetKey()) != string(key) {
			err = fmt.Errorf("wrong answer: %v", answer)
		}
		return err
	}
	for i := range streams {
		stream, err := openStream(t, g.Host(), g.server)
		if err != nil {
			t.Fatal(err)
		}
		// go-libp2p opens a stream only when it writes the first bytes.
		if err := ask(stream, fmt.Sprint("first ", i)); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		streams[i] = stream
	}
	for round := range 3 {
		var group sync.WaitGroup
		for i, stream := range streams {
			group.Go(func() {
				if err := ask(stream, fmt.Sprint(round, i)); err != nil {
					t.Errorf("round %d, stream %d: %v", round, i, err)
				}
			})
		}
		group.Wait()
	}
	if open := g.streams(); open < count {
		t.Fatalf("%d streams are open, want %d", open, count)
	}
	for _, stream := range streams {
		stream.Reset()
	}
	if err := g.Ping(g.context(), g.server.ID); err != nil {
		t.Fatalf("afterwards: %v", err)
	}
}
