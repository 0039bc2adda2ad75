import java.io.File;
import java.io.IOException;
import org.apache.kerby.kerberos.kerb.client.KrbClient;
import org.apache.kerby.kerberos.kerb.server.KdcConfigKey;
import org.apache.kerby.kerberos.kerb.server.SimpleKdcServer;
import org.apache.kerby.kerberos.kerb.type.ticket.TgtTicket;

/**
 * A KDC: REALM PORT DIRECTORY, then PRINCIPALs. Every principal's keys and tickets lie in the directory, as
 * NAME.keytab and NAME.tickets. Says "ready", and ends with its standard input.
 */
public final class Kdc {
    public static void main(String[] arguments) throws Exception {
        String realm = arguments[0];
        File directory = new File(arguments[2]);
        SimpleKdcServer kdc = new SimpleKdcServer();
        kdc.setKdcRealm(realm);
        kdc.setKdcHost("127.0.0.1");
        kdc.setKdcTcpPort(Integer.parseInt(arguments[1]));
        kdc.setAllowTcp(true);
        kdc.setAllowUdp(false);
        kdc.setWorkDir(directory);
        kdc.getKdcConfig().setString(
                KdcConfigKey.ENCRYPTION_TYPES, "aes256-cts-hmac-sha1-96 aes128-cts-hmac-sha1-96");
        kdc.init();
        kdc.start();
        for (int index = 3; index < arguments.length; index++) {
            String principal = arguments[index] + "@" + realm;
            String name = arguments[index].replace('/', '-');
            File keytab = new File(directory, name + ".keytab");
            kdc.createPrincipal(principal);
            kdc.exportPrincipal(principal, keytab);
            KrbClient client = kdc.getKrbClient();
            TgtTicket ticket = client.requestTgt(principal, keytab);
            client.storeTicket(ticket, new File(directory, name + ".tickets"));
        }
        System.out.println("ready");
        waitForEnd();
        kdc.stop();
    }

    private static void waitForEnd() throws IOException {
        while (System.in.read() >= 0) {
            continue;
        }
    }
}
