// What JDBC tools ask, printed line by line: the test compares.
import java.sql.*;
import java.util.*;

public class Metadata {
    interface Ask { Object ask() throws Exception; }

    static void say(String name, Ask ask) {
        try {
            System.out.println(name + "=" + ask.ask());
        } catch (SQLException e) {
            System.out.println(name + "!" + e.getSQLState());
        } catch (Exception e) {
            System.out.println(name + "!" + e);
        }
    }

    static List<String> column(ResultSet rows, int column) throws SQLException {
        List<String> out = new ArrayList<>();
        while (rows.next()) out.add(rows.getString(column));
        return out;
    }

    public static void main(String[] args) throws Exception {
        String url = "jdbc:postgresql://localhost:" + args[0] + "/strongroom?sslmode=verify-full&sslrootcert=" + args[1];
        String[] table = {"TABLE"};
        try (Connection c = DriverManager.getConnection(url, args[2], args[3])) {
            DatabaseMetaData m = c.getMetaData();
            say("version", () -> m.getDatabaseProductName() + " " + m.getDatabaseMajorVersion());
            say("catalogs", () -> column(m.getCatalogs(), 1));
            say("schemas", () -> column(m.getSchemas(), 1));
            say("tables", () -> column(m.getTables(null, "public", "%", table), 3));
            say("columns", () -> column(m.getColumns(null, "public", "memories", "%"), 4).size());
            say("types", () -> column(m.getColumns(null, "public", "memories", "tags"), 6));
            say("key", () -> column(m.getPrimaryKeys(null, "public", "memories"), 4));
            say("indexes", () -> column(m.getIndexInfo(null, "public", "memories", false, false), 6));
            say("imported", () -> column(m.getImportedKeys(null, "public", "memories"), 3));
            say("functions", () -> new TreeSet<>(column(m.getFunctions(null, "public", "%"), 3)));
            say("function columns", () -> column(m.getFunctionColumns(null, "public", "keyword_rank", "%"), 4));
            say("type info", () -> column(m.getTypeInfo(), 1).size() > 20);
            say("privileges", () -> column(m.getTablePrivileges(null, "public", "memories"), 6));
            say("keywords", () -> !m.getSQLKeywords().isEmpty());
            PreparedStatement p = c.prepareStatement(
                "SELECT memory_id, content, importance, created_at, tags, has_embedding, access_count"
                + " FROM memories WHERE agent_id = ? AND importance > ? AND created_at < ? ORDER BY importance");
            String last = "";
            for (int i = 0; i < 8; i++) {  // from the sixth on, prepared on the server and in binary
                p.setString(1, "agent-1");
                p.setDouble(2, 0.5);
                p.setTimestamp(3, new Timestamp(System.currentTimeMillis() + 60_000));
                ResultSet r = p.executeQuery();
                r.next();
                last = r.getObject(1).getClass().getSimpleName() + "|" + r.getString(2) + "|" + r.getDouble(3) + "|"
                    + Arrays.toString((Object[]) r.getArray(5).getArray()) + "|" + r.getLong(7);
            }
            String row = last;
            say("row", () -> row);
            say("uuid", () -> {
                PreparedStatement q = c.prepareStatement("SELECT count(*) FROM memories WHERE memory_id = ?");
                q.setObject(1, UUID.randomUUID());
                return column(q.executeQuery(), 1);
            });
            c.setAutoCommit(false);
            say("portions", () -> {
                Statement s = c.createStatement();
                s.setFetchSize(7);
                return column(s.executeQuery("SELECT content FROM memories"), 1).size();
            });
            say("write", () -> c.createStatement().executeUpdate("DELETE FROM memories"));
            c.rollback();
            say("savepoint", () -> {
                Savepoint s = c.setSavepoint();
                try {
                    c.createStatement().executeQuery("SELECT nope FROM memories");
                } catch (SQLException e) {
                    c.rollback(s);
                }
                return column(c.createStatement().executeQuery("SELECT 1"), 1);
            });
            c.commit();
            say("valid", () -> c.isValid(5));
        }
    }
}
